//! Routing: from a request to its response.

use std::sync::Arc;
use std::time::Instant;

use hyper::body::{Body, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_SECURITY_POLICY,
    HeaderName, HeaderValue, LOCATION, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Method, Request, StatusCode};

use super::body::{PageBody, PageResponse, answer, text};
use super::filter::{Filter, Listed};
use super::negotiate::AnswerFormat;
use super::pages::runbook::RUNBOOK;
use super::paths::BELOW;
use super::service::Service;
use super::web_config::{AuthOutcome, Rules};
use super::{negotiate, pages};

/// The endpoints.
enum Endpoint<'p> {
    Metrics,
    Status,
    Healthy,
    Ready,
    Reload,
    Incidents,
    /// With the part of the path behind `/incidents/`.
    Incident(&'p str),
    Runbook,
    Css,
    Js,
}

impl<'p> Endpoint<'p> {
    fn of(path: &'p str, telemetry_path: &str) -> Option<Endpoint<'p>> {
        Some(match path {
            _ if path == telemetry_path => Endpoint::Metrics,
            "/" => Endpoint::Status,
            "/-/healthy" => Endpoint::Healthy,
            "/-/ready" => Endpoint::Ready,
            "/-/reload" => Endpoint::Reload,
            "/incidents" => Endpoint::Incidents,
            "/runbook" => Endpoint::Runbook,
            "/status.css" => Endpoint::Css,
            "/status.js" => Endpoint::Js,
            _ => Endpoint::Incident(path.strip_prefix("/incidents/")?),
        })
    }

    fn allowed(&self) -> &'static str {
        match self {
            Endpoint::Reload => "POST, PUT",
            _ => "GET, HEAD",
        }
    }

    fn allows(&self, method: &Method) -> bool {
        self.allowed().split(", ").any(|name| name == method.as_str())
    }
}

/// Whether an endpoint other than the metrics and the status page has this path.
pub(super) fn is_taken(path: &str) -> bool {
    !matches!(Endpoint::of(path, "/"), None | Some(Endpoint::Metrics))
}

/// Answers one request; an error is an answer with its status.
pub(super) async fn respond(service: &Arc<Service>, request: &Request<Incoming>) -> PageResponse {
    let rules = service.web_config.rules();
    let mut response = match admit(&rules, request).await {
        Some(refusal) => refusal,
        None => dispatch(service, request).await,
    };
    let headers = response.headers_mut();
    headers.extend(rules.headers.clone());
    set_default(headers, X_CONTENT_TYPE_OPTIONS, "nosniff");
    set_default(headers, CACHE_CONTROL, "no-store");
    response
}

/// The refusal of a request by rate limit, authentication or its body, if there is one.
async fn admit(rules: &Rules, request: &Request<Incoming>) -> Option<PageResponse> {
    if rules.rate.as_ref().is_some_and(|bucket| !bucket.take(Instant::now())) {
        let why = "More requests than rate_limit allows; try again.";
        return Some(text(StatusCode::TOO_MANY_REQUESTS, why));
    }
    if let Some(auth) = &rules.auth {
        match auth.check(request.headers().get(AUTHORIZATION)).await {
            AuthOutcome::Granted => {}
            AuthOutcome::Denied => {
                let mut denied = text(StatusCode::UNAUTHORIZED, "Unauthorized.");
                let basic = HeaderValue::from_static("Basic");
                denied.headers_mut().insert(WWW_AUTHENTICATE, basic);
                return Some(denied);
            }
            AuthOutcome::Busy => {
                let why = "Too many passwords are being checked; try again.";
                return Some(text(StatusCode::SERVICE_UNAVAILABLE, why));
            }
        }
    }
    refuse_body(request)
}

fn set_default(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.entry(name).or_insert(HeaderValue::from_static(value));
}

/// No endpoint takes a body, so none is read: the connection is closed behind the answer.
fn refuse_body(request: &Request<Incoming>) -> Option<PageResponse> {
    if request.body().is_end_stream() {
        return None;
    }
    let mut refusal = text(StatusCode::PAYLOAD_TOO_LARGE, "No endpoint here takes a request body.");
    refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Some(refusal)
}

async fn dispatch(service: &Arc<Service>, request: &Request<Incoming>) -> PageResponse {
    let (paths, path) = (&service.paths, request.uri().path());
    if let Some(to) = paths.moved(path) {
        return moved(&to);
    }
    let found = paths.within(path).and_then(|path| Endpoint::of(path, &paths.telemetry_path));
    let Some(endpoint) = found else {
        let why = format!("Not found. The status page is at {}.", paths.status_page());
        return text(StatusCode::NOT_FOUND, why);
    };
    if !endpoint.allows(request.method()) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed.");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(endpoint.allowed()));
        return response;
    }
    match endpoint {
        Endpoint::Metrics => metrics(service, request.headers()).await,
        Endpoint::Status => {
            service.state.read_cpu().await;
            html(service.state.status_page(&paths.telemetry_path))
        }
        Endpoint::Runbook => html(RUNBOOK.as_str()),
        Endpoint::Css => answer(StatusCode::OK, "text/css; charset=utf-8", pages::CSS.into()),
        Endpoint::Js => answer(StatusCode::OK, "text/javascript; charset=utf-8", pages::JS.into()),
        Endpoint::Incidents => incidents(service, request),
        Endpoint::Incident(id) => incident(service, id, request),
        Endpoint::Healthy => text(StatusCode::OK, "kqproc_exporter is healthy."),
        Endpoint::Ready => ready(service),
        Endpoint::Reload => reload(service).await,
    }
}

fn moved(to: &str) -> PageResponse {
    let mut response = text(StatusCode::FOUND, format!("The status page is at {to}."));
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

async fn metrics(service: &Service, headers: &HeaderMap) -> PageResponse {
    let Some(permit) = service.scrape_permit() else {
        let why = "As many scrapes as --web.max-requests allows are being answered; try again.";
        return text(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    service.state.read_cpu().await;
    let page = match service.state.page() {
        Ok(page) => page,
        Err(error) => {
            tracing::error!(%error, "scrape failed");
            return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
        }
    };
    let (format, gzip) = (negotiate::format(headers), negotiate::gzip(headers));
    let body = PageBody::from(page.bytes(format, gzip)).with_permit(permit);
    let mut response = answer(StatusCode::OK, format.content_type(), body);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn html(page: impl Into<PageBody>) -> PageResponse {
    let mut response = answer(StatusCode::OK, "text/html; charset=utf-8", page.into());
    let policy = HeaderValue::from_static(pages::SECURITY_POLICY);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

fn json(encoded: serde_json::Result<Vec<u8>>) -> PageResponse {
    match encoded {
        Ok(json) => answer(StatusCode::OK, "application/json", json.into()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn incidents(service: &Service, request: &Request<Incoming>) -> PageResponse {
    let filter = match Filter::parse(request.uri().query().unwrap_or("")) {
        Ok(filter) => filter,
        Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let (snapshot, about) = (service.state.snapshot(), service.state.about());
    let listed = Listed::new(&filter, &service.state.incidents(), &snapshot, about);
    let format = filter.format.unwrap_or_else(|| AnswerFormat::liked(request.headers()));
    negotiated(match format {
        AnswerFormat::Html => html(pages::incidents::html(&listed)),
        AnswerFormat::Json => json(listed.json(&service.paths.base(""))),
    })
}

fn incident(service: &Service, id: &str, request: &Request<Incoming>) -> PageResponse {
    let found = id.parse().ok().and_then(|id| service.state.incidents().get(id));
    let Some(incident) = found else {
        let why = "No such incident. Only the latest of each verdict are kept.";
        return text(StatusCode::NOT_FOUND, why);
    };
    let format = match AnswerFormat::asked(request.uri().query().unwrap_or("")) {
        Ok(asked) => asked.unwrap_or_else(|| AnswerFormat::liked(request.headers())),
        Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let snapshot = service.state.snapshot();
    let stats = snapshot.of_incident(&incident);
    negotiated(match format {
        AnswerFormat::Html => html(pages::incident::html(&incident, stats)),
        AnswerFormat::Json => {
            let mut dto = incident.dto_in_full(stats);
            dto.runbook.insert_str(0, &service.paths.base(BELOW));
            json(serde_json::to_vec(&dto))
        }
    })
}

/// Says to caches that the answer depends on `Accept`.
fn negotiated(mut response: PageResponse) -> PageResponse {
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn ready(service: &Service) -> PageResponse {
    let awaited = service.state.awaited();
    if awaited.is_empty() {
        return text(StatusCode::OK, "kqproc_exporter is ready.");
    }
    let names: Vec<&str> = awaited.iter().map(|source| source.as_str()).collect();
    let why = format!("Not ready: nothing yet from {}.", names.join(", "));
    text(StatusCode::SERVICE_UNAVAILABLE, why)
}

async fn reload(service: &Arc<Service>) -> PageResponse {
    match service.reload().await {
        Ok(()) => text(StatusCode::OK, "Configuration loaded."),
        Err(error) => {
            let why = format!("The configuration was kept as it was: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, why)
        }
    }
}
