//! HTML pages for people. They work without JavaScript.

pub(super) mod incident;
pub(super) mod incidents;
pub(super) mod runbook;
mod spark;
pub(super) mod status;

use super::about::About;
use crate::metrics::Origin;
pub(super) use crate::report::escape::Escaped;

/// The stylesheet of every page.
pub(super) const CSS: &str = include_str!("status.css");
/// Refreshes the status page in place.
pub(super) const JS: &str = include_str!("status.js");
/// Nothing from elsewhere is loaded or run, and nothing inline either: what slips through escaping stays text.
pub(super) const SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Says that a recording or a simulation is not this host; empty for a live kernel.
fn banner(about: &About) -> String {
    let what = match about.origin {
        Origin::Live => return String::new(),
        Origin::Replay => "was recorded on another kernel",
        Origin::Simulate => "is a simulated kernel",
    };
    let (release, detail) = (Escaped(&about.osrelease), Escaped(&about.detail));
    format!(
        "<p class=\"banner\" role=\"note\"><b>This is not the host you are on.</b> What you see {what}: \
         {release}, {detail}.</p>\n"
    )
}

/// A whole page around `main`, with more for its head. Its links begin with `root`, the way from it to the top level.
fn page(root: &str, title: &str, head: &str, main: &str) -> String {
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{root}status.css">
{head}</head>
<body>
<header>
<a class="name" href="{root}">kqproc_exporter</a>
<nav><a href="{root}incidents">Incidents</a> <a href="{root}runbook">Runbook</a> <a href="{root}-/ready">Ready</a></nav>
</header>
<main>
{main}</main>
<footer>kqproc_exporter {version}</footer>
</body>
</html>
"#,
        title = Escaped(title),
        version = env!("CARGO_PKG_VERSION"),
    )
}
