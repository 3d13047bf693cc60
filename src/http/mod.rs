//! The HTTP server, to exporter-toolkit's conventions.
//!
//! | endpoint | answers |
//! |---|---|
//! | `/` | the status page |
//! | `/metrics` (or `--web.telemetry-path`) | the metrics, text 0.0.4 or OpenMetrics 1.0 |
//! | `/incidents` | the latest facts on which the witnesses disagreed, newest first: a page for browsers, JSON for others; filters: `tree`, `verdict`, `fact`, `pid`, `limit`; `timeline=true` and `format=html` or `json` |
//! | `/incidents/ID` | one of them with its time line: a page for browsers, JSON for others or with `?format=json` |
//! | `/runbook` | docs/runbook.md as a page |
//! | `/-/healthy` | 200 while the process lives |
//! | `/-/ready` | 200 once every configured source has delivered something, 503 before |
//! | `/-/reload` | POST or PUT: loads the configuration again |
//!
//! No request waits for the ingest: it reads what was published last, see [`State`].

mod about;
mod body;
mod filter;
mod history;
mod incidents;
mod limits;
mod listen;
mod negotiate;
mod pages;
mod paths;
mod peers;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
mod query;
mod route;
mod server;
mod service;
mod snapshot;
mod state;
mod timed_stream;
mod token_bucket;
pub mod web_args;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
mod web_config;

pub use about::About;
pub use incidents::Incidents;
pub use limits::Limits;
pub use query::encode;
pub use server::{BindError, Server};
pub use state::State;
