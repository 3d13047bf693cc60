//! Response bodies, which keep a scrape's permit until the connection has taken their last byte.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

/// How much is handed to the connection at once: what a client that does not read can hold up in our buffers.
const FRAME: usize = 64 << 10;

/// Bytes to send. Keeps its permit until the last of them was taken by the connection.
#[derive(Default)]
pub(super) struct PageBody {
    rest: Bytes,
    permit: Option<OwnedSemaphorePermit>,
}

pub(super) type PageResponse = Response<PageBody>;

impl PageBody {
    pub(super) fn with_permit(self, permit: OwnedSemaphorePermit) -> PageBody {
        PageBody { permit: Some(permit), ..self }
    }
}

impl<B: Into<Bytes>> From<B> for PageBody {
    fn from(bytes: B) -> PageBody {
        PageBody { rest: bytes.into(), permit: None }
    }
}

impl Body for PageBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            self.permit = None;
            return Poll::Ready(None);
        }
        let len = self.rest.len().min(FRAME);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// A response of this type and content.
pub(super) fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: PageBody,
) -> PageResponse {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A line or two of plain text.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> PageResponse {
    let mut text = text.into();
    text.push('\n');
    answer(status, "text/plain; charset=utf-8", text.into())
}
