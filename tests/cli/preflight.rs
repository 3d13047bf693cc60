//! `check` on a host that is not FreeBSD.
#![cfg(not(target_os = "freebsd"))]

use std::net::TcpListener;

use assert_cmd::Command;

#[test]
fn a_host_without_kqueue_fails_and_the_rest_is_still_checked() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let done = Command::cargo_bin("kqproc_exporter")
        .expect("built")
        .args(["check", "--web.listen-address", &address, "--web.listen-address", "127.0.0.1:0"])
        .assert()
        .code(69);
    let stdout = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    let line = |start: &str| stdout.lines().find(|l| l.starts_with(start)).map(str::to_owned);
    assert!(line("fail  kernel").is_some_and(|l| l.contains("serve --source replay")), "{stdout}");
    assert!(line("fail  listen").is_some_and(|l| l.contains(&address)), "{stdout}");
    assert!(line("ok    listen").is_some_and(|l| l.contains("127.0.0.1:0 is free")), "{stdout}");
    assert!(!stdout.contains('\x1b'), "no colour without a terminal: {stdout}");
}
