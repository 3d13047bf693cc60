//! Opens the listening sockets: IPv6 and IPv4 as Go's programs do.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::http::web_args::ListenAddress;

/// The first address of the host that can be bound. `::` takes IPv4 too, as Go's programs do; where there is no
/// IPv6 at all, `0.0.0.0` stands for it.
pub(super) fn listen(address: &ListenAddress) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for resolved in address.resolve()? {
        match bind(resolved) {
            Ok(listener) => return Ok(listener),
            Err(_) if resolved.ip().is_unspecified() && !has_ipv6() => {
                return bind(SocketAddr::from(([0, 0, 0, 0], resolved.port())));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn has_ipv6() -> bool {
    Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).is_ok()
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}
