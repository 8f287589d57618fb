//! Parts of the mesh that do not hear each other. I/O: runs iptables.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Result, ensure};

use super::{CONTROLLER, DISCOVERY, Mesh, Pod};

impl Mesh<'_> {
    /// Lets nothing through between the pods and the flag service, or everything again.
    pub fn cut_flag_service(&self, cut: bool) -> Result<()> {
        let port = CONTROLLER.port().to_string();
        drop_all(CONTROLLER.ip(), cut, ["--dport", &port], ["--sport", &port])
    }

    /// The same between this pod alone and what tells it anything: the flag service and istiod. All others it reaches.
    pub fn cut_off(&self, pod: &Pod, cut: bool) -> Result<()> {
        let pod = pod.ip().to_string();
        let each = [CONTROLLER, DISCOVERY].map(|one| one.ip());
        each.into_iter().try_for_each(|one| drop_all(one, cut, ["--source", &pod], ["--destination", &pod]))
    }
}

/// In the cluster's namespace, where all of them run: nobody is told that nothing arrives.
fn drop_all(address: IpAddr, cut: bool, there: [&str; 2], back: [&str; 2]) -> Result<()> {
    let address = address.to_string();
    for (chain, of, peer) in [("INPUT", "--destination", there), ("OUTPUT", "--source", back)] {
        let mut command = Command::new("iptables");
        command.args(["--wait", if cut { "--insert" } else { "--delete" }, chain, "--protocol", "tcp"]);
        command.args([of, &address]).args(peer).args(["--jump", "DROP"]);
        run(command)?;
    }
    Ok(())
}

/// The error is what iptables has to say.
pub(super) fn run(mut iptables: Command) -> Result<()> {
    let output = iptables.output()?;
    ensure!(output.status.success(), "iptables: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
