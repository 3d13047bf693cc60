//! `check` as users run it.
#![cfg(not(target_os = "freebsd"))]

use std::net::TcpListener;

use assert_cmd::Command;

#[test]
fn a_host_without_kqueue_is_told_so_and_the_rest_is_checked_all_the_same() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let done = Command::cargo_bin("kqproc_exporter")
        .expect("built")
        .args(["check", "--web.listen-address", &address, "--web.listen-address", "127.0.0.1:0"])
        .assert()
        .code(69);
    let said = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    let line = |start: &str| said.lines().find(|l| l.starts_with(start)).map(str::to_owned);
    assert!(line("fail  kernel").is_some_and(|l| l.contains("serve --source replay")), "{said}");
    assert!(line("fail  listen").is_some_and(|l| l.contains(&address)), "{said}");
    assert!(line("ok    listen").is_some_and(|l| l.contains("127.0.0.1:0 is free")), "{said}");
    assert!(!said.contains('\x1b'), "no colour where there is no terminal: {said}");
}
