//! Where the endpoints are: behind a prefix, perhaps, and behind a proxy that has put another one before it.

use super::web_args::WebArgs;

/// A link from a page at the top level to another one begins with this, so that it holds behind any path.
pub(super) const TOP: &str = "./";
/// The same from a page one level below.
pub(super) const BELOW: &str = "../";

/// The paths of this service, as its clients use them.
#[derive(Default)]
pub(super) struct Routes {
    /// Before every path of a request: `/kqproc`, or empty.
    prefix: String,
    /// Where browsers find the service, without a `/` at its end; `None` where nobody has said.
    external: Option<String>,
    pub(super) telemetry_path: String,
}

impl Routes {
    pub(super) fn new(args: &WebArgs) -> Routes {
        let external = args.external_url.as_ref();
        let prefix = args.route_prefix.as_deref().or(external.map(|url| url.path.as_str()));
        Routes {
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

    /// Where a request for this path is sent on to, as it has only left out the prefix or its last `/`.
    pub(super) fn moved(&self, path: &str) -> Option<String> {
        let is_near = !self.prefix.is_empty() && (path == "/" || path == self.prefix);
        is_near.then(|| self.status_page())
    }

    /// The path of the status page.
    pub(super) fn status_page(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// What a program puts before a relative link: the service's own address where it is known, else `relative`.
    pub(super) fn base(&self, relative: &str) -> String {
        self.external.as_ref().map_or(relative.to_owned(), |url| format!("{url}/"))
    }
}
