//! `check` on a host that is not FreeBSD.
#![cfg(not(target_os = "freebsd"))]

use std::net::TcpListener;

use crate::{program, run};

#[test]
fn a_host_without_kqueue_fails_and_the_rest_is_still_checked() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let flags = ["--web.listen-address", &address, "--web.listen-address", "127.0.0.1:0"];
    let (status, text, _) = run(program(&["check"]).args(flags));
    assert_eq!(status, Some(69));
    let line = |start: &str| text.lines().find(|l| l.starts_with(start)).expect(start);
    assert!(line("fail  kernel").contains("serve --source replay"), "{text}");
    assert!(line("fail  listen").contains(&address), "{text}");
    assert!(line("ok    listen").contains("127.0.0.1:0 is free"), "{text}");
}
