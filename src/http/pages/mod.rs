//! HTML pages for people. They work without JavaScript.

pub(super) mod incident;
pub(super) mod incidents;
pub(super) mod runbook;
mod spark;
pub(super) mod status;

use maud::{DOCTYPE, Markup, html};

use super::about::About;
use crate::metrics::Origin;
use crate::report::escape::Clean;

/// The stylesheet of every page.
pub(super) const CSS: &str = include_str!("status.css");
/// Refreshes the status page in place.
pub(super) const JS: &str = include_str!("status.js");
/// Nothing from elsewhere is loaded or run, and nothing inline either: what slips through escaping stays text.
pub(super) const SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Says that a recording or a simulation is not this host; empty for a live kernel.
fn banner(about: &About) -> Markup {
    let what = match about.origin {
        Origin::Live => return html! {},
        Origin::Replay => "was recorded on another kernel",
        Origin::Simulate => "is a simulated kernel",
    };
    html! {
        p.banner role="note" {
            b { "This is not the host you are on." }
            " What you see " (what) ": " (Clean(&about.osrelease)) ", " (Clean(&about.detail)) "."
        }
    }
}

/// A whole page around `main`, with more for its head. Its links begin with `root`, the way from it to the top level.
fn page(root: &str, title: &str, head: Markup, main: Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="icon" href="data:,";
                link rel="stylesheet" href={ (root) "status.css" };
                (head)
            }
            body {
                header {
                    a.name href=(root) { "kqproc_exporter" }
                    " "
                    nav {
                        a href={ (root) "incidents" } { "Incidents" } " "
                        a href={ (root) "runbook" } { "Runbook" } " "
                        a href={ (root) "-/ready" } { "Ready" }
                    }
                }
                main { (main) }
                footer { "kqproc_exporter " (env!("CARGO_PKG_VERSION")) }
            }
        }
    };
    page.into_string()
}
