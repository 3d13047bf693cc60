//! The paths of the endpoints: behind a prefix of our own, and behind a proxy that adds one.

use super::web_args::WebArgs;

/// What links begin with on a page at the top level. They are relative, so they hold behind any prefix.
pub(super) const TOP: &str = "./";
/// The same on a page one level below.
pub(super) const BELOW: &str = "../";

/// The paths of this service, as its clients use them.
#[derive(Default)]
pub(super) struct ServicePaths {
    /// Before every path of a request: `/kqproc`, or empty.
    prefix: String,
    /// `--web.external-url`, without a `/` at its end.
    external: Option<String>,
    pub(super) telemetry_path: String,
}

impl ServicePaths {
    pub(super) fn new(args: &WebArgs) -> ServicePaths {
        let external = args.external_url.as_ref();
        let prefix = args.route_prefix.as_deref().or(external.map(|url| url.path.as_str()));
        ServicePaths {
            prefix: prefix.unwrap_or_default().to_owned(),
            external: external.map(ToString::to_string),
            telemetry_path: args.telemetry_path.clone(),
        }
    }

    pub(super) fn external(&self) -> Option<&str> {
        self.external.as_deref()
    }

    /// The path behind the prefix; `None` for one that is elsewhere.
    pub(super) fn within<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(self.prefix.as_str()).filter(|path| path.starts_with('/'))
    }

    /// Where a request is redirected that lacks the prefix or its last `/`.
    pub(super) fn moved(&self, path: &str) -> Option<String> {
        let is_near = !self.prefix.is_empty() && (path == "/" || path == self.prefix);
        is_near.then(|| self.status_page())
    }

    /// The path of the status page.
    pub(super) fn status_page(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// What links in JSON begin with: the external URL if it is known, else `relative`.
    pub(super) fn base(&self, relative: &str) -> String {
        self.external.as_ref().map_or(relative.to_owned(), |url| format!("{url}/"))
    }
}
