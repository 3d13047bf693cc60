//! Path prefixes: a proxy serves the exporter below a path, and removes the path from requests, or does not.

use std::collections::BTreeSet;

use kqproc_exporter::check::finding::Observer;

use crate::common::client::Reply;
use crate::status::{BROWSER, lost};
use crate::support::Exporter;

/// Where the pages lead to: links, scripts, stylesheets and forms.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let quoted =
        |attribute| page.split(attribute).skip(1).filter_map(|rest: &str| rest.split('"').next());
    quoted(" href=\"").chain(quoted(" src=\"")).chain(quoted(" action=\""))
}

/// A relative link on the page at `path`, as a browser understands it.
fn resolved(path: &str, link: &str) -> String {
    let mut folders: Vec<&str> = path.split('?').next().unwrap().split('/').collect();
    folders.pop();
    let mut parts = link.split('/');
    let mut last = "";
    for part in parts.by_ref() {
        match part {
            "." | "" => last = "",
            ".." => {
                folders.pop();
                last = "";
            }
            part => {
                folders.push(part);
                last = part;
            }
        }
    }
    match last {
        "" => folders.join("/") + "/",
        _ => folders.join("/"),
    }
}

/// Follows every link from the status page on; a browser sees `outside` where the exporter is asked for `inside`.
fn crawl(exporter: &Exporter, outside: &str, inside: &str) -> BTreeSet<String> {
    exporter.state.incidents().finding(&lost(101));
    let ask = |path: &str| -> Reply {
        let rest = path.strip_prefix(outside).unwrap_or_else(|| panic!("{path} is elsewhere"));
        exporter.request("GET", &format!("{inside}{rest}"), BROWSER)
    };
    let (mut seen, mut open) = (BTreeSet::new(), vec![format!("{outside}/")]);
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let reply = ask(&path);
        let is_unready = reply.status == 503 && path.ends_with("/-/ready");
        assert!(reply.status == 200 || is_unready, "{path}: {}", reply.status);
        if reply.header("content-type").unwrap().starts_with("text/html") {
            let local = |link: &&str| !link.starts_with('#') && !link.contains(':');
            let text = reply.text().replace("&amp;", "&");
            for link in links(&text).filter(local) {
                let link = link.split('#').next().unwrap();
                assert!(!link.starts_with('/'), "{path} leads to {link}");
                open.push(resolved(&path, link));
            }
        }
    }
    seen
}

#[test]
fn fault_11_every_link_holds_where_a_proxy_takes_the_prefix_away() {
    let exporter = Exporter::start(&[]);
    let seen = crawl(&exporter, "/host7/kq", "");
    for path in ["/", "/status.css", "/status.js", "/incidents", "/incidents/1", "/runbook"] {
        assert!(seen.contains(&format!("/host7/kq{path}")), "{path}: {seen:?}");
    }
}

#[test]
fn every_link_holds_behind_a_prefix_of_our_own() {
    let exporter = Exporter::start(&["--web.route-prefix=/host7/kq/"]);
    let seen = crawl(&exporter, "/host7/kq", "/host7/kq");
    assert!(seen.contains("/host7/kq/incidents/1"), "{seen:?}");
    for path in ["/metrics", "/-/healthy", "/host7", "/host7/kqx/", "/host7/kq/nowhere"] {
        let reply = exporter.get(path);
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.text(), "Not found. The status page is at /host7/kq/.\n");
    }
    for path in ["/", "/host7/kq"] {
        let reply = exporter.get(path);
        assert_eq!((reply.status, reply.header("location")), (302, Some("/host7/kq/")), "{path}");
    }
    assert_eq!(exporter.request("POST", "/host7/kq/-/reload", "").status, 200);
}

#[test]
fn an_external_url_is_the_prefix_and_what_absolute_links_begin_with() {
    let url = "--web.external-url=https://mon.example.org/kq/";
    for (flags, prefix) in [(&[url][..], "/kq"), (&[url, "--web.route-prefix=/"][..], "")] {
        let exporter = Exporter::start(flags);
        crawl(&exporter, "/kq", prefix);
        let metrics = exporter.get(&format!("{prefix}/metrics"));
        let info = r#"kqproc_external_url_info{url="https://mon.example.org/kq"}"#;
        assert_eq!(metrics.samples()[info], 1.0);
        for path in ["/incidents/1", "/incidents?timeline=true"] {
            let json = exporter.get(&format!("{prefix}{path}"));
            let runbook = r#""runbook":"https://mon.example.org/kq/runbook#verdict-lost-silent""#;
            assert!(json.text().contains(runbook), "{}", json.text());
        }
    }
}

/// A program resolves a relative link against the document that it has.
#[test]
fn without_an_external_url_links_to_the_runbook_are_relative_to_the_document() {
    let exporter = Exporter::start(&[]);
    exporter.state.incidents().finding(&lost(101));
    for (path, runbook) in [
        ("/incidents/1", r#""runbook":"../runbook#verdict-lost-silent""#),
        ("/incidents", r#""runbook":"runbook#verdict-lost-silent""#),
    ] {
        assert!(exporter.get(path).text().contains(runbook), "{path}");
    }
    assert_eq!(exporter.samples()[r#"kqproc_external_url_info{url=""}"#], 1.0);
}
