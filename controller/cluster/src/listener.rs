//! Where the flag service listens. I/O.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

/// Listens at an address. All addresses of IPv6 are those of IPv4, too; a machine without IPv6 has only these.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let all = address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED);
    match TcpListener::bind(address).await {
        Err(error) if all && error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))).await
        }
        done => done,
    }
}
