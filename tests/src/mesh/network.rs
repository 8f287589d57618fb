//! The network of the pods: each has a namespace of its own, joined to the cluster's by a pair of
//! devices, and the cluster's namespace is the router between them. I/O: runs `ip` and iptables.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::netns::{ADDRESSES, Network, ip};

/// All but pods: services, and what runs in the cluster's namespace.
const HERE: &str = "198.19.0.0/16";
/// The next hop of every pod. All addresses of the cluster's namespace answer on all its devices.
const GATEWAY: &str = "198.19.128.1";
/// Envoy's user and group, whose connections are not led to Envoy again.
pub(super) const PROXY: u32 = 1337;

/// Makes the cluster's namespace, in which this runs, the router of pods to come.
pub(super) fn prepare() -> Result<()> {
    ip(&format!("route del local {ADDRESSES} dev lo\nroute add local {HERE} dev lo\n"))?;
    // Of this namespace alone, as everything below net is.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("forwarding between pods")
}

/// A namespace with this address, joined to the one in which this runs.
pub(super) fn attach(address: Ipv4Addr, set_up: impl FnOnce(&Network) -> Result<()> + Send) -> Result<Network> {
    let [_, _, third, fourth] = address.octets();
    let device = format!("pod-{third}-{fourth}");
    let router = Network::current()?;
    let network = Network::create(|network| {
        // No subnet: even a neighbour is reached through the router, which sees both directions.
        ip(&format!(
            "link set lo up\n\
             link add eth0 type veth peer name {device} netns {}\n\
             addr add {address}/32 dev eth0\n\
             link set eth0 up\n\
             route add {GATEWAY} dev eth0 scope link\n\
             route add default via {GATEWAY}\n",
            router.path().display()
        ))?;
        set_up(network)
    })?;
    ip(&format!("link set {device} up\nroute replace {address}/32 dev {device} src {GATEWAY}\n"))?;
    Ok(network)
}

/// Replaces a chain of the table `nat`.
pub(super) fn replace_nat_chain(chain: &str, rules: &str) -> Result<()> {
    let mut child = Command::new("iptables-restore")
        .args(["--noflush", "--wait"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("iptables-restore")?;
    // A chain that is declared is emptied.
    let table = format!("*nat\n:{chain} - [0:0]\n{rules}COMMIT\n");
    child.stdin.take().context("a process without input")?.write_all(table.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
