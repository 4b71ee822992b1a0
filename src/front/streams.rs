//! Bodies of HTTP that are too large for memory: sent from a file, and handed on as they come.

use std::io::{self, Read};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::Response as HttpResponse;
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderValue};

use crate::model::{Download, Fault, FileBody, Response, Upload};

/// So much of a file is read at a time.
const PIECE: usize = 256 << 10;

type Pieces = Pin<Box<dyn Stream<Item = io::Result<Frame<Bytes>>> + Send>>;

/// What an answer's body is: at hand, or read while it is sent.
pub(super) type Sent = Either<Full<Bytes>, StreamBody<Pieces>>;

/// Makes the body and sends it.
pub(super) async fn download(download: Download) -> Result<HttpResponse<Sent>, Fault> {
    let made = tokio::task::spawn_blocking(move || download.make()).await;
    let body = made.unwrap_or_else(|_| Err(Fault::internal("making a body panicked")))?;
    let bytes = body.bytes;
    let pieces: Pieces = Box::pin(stream::try_unfold(body, |body| async move {
        let read = tokio::task::spawn_blocking(move || piece(body)).await;
        read.unwrap_or_else(|_| Err(io::Error::other("reading a body panicked")))
    }));
    let mut response = HttpResponse::new(Either::Right(StreamBody::new(pieces)));
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    Ok(response)
}

fn piece(mut body: FileBody) -> io::Result<Option<(Frame<Bytes>, FileBody)>> {
    let mut bytes = Vec::with_capacity(PIECE);
    Read::take(&mut body.file, PIECE as u64).read_to_end(&mut bytes)?;
    Ok((!bytes.is_empty()).then(|| (Frame::data(Bytes::from(bytes)), body)))
}

/// Hands the body on as it comes, and says what came of it. A client that pauses for longer than `patience` is given up.
pub(super) async fn upload(Upload(mut intake): Upload, body: Incoming, patience: Duration) -> Result<Response, Fault> {
    let mut body = body;
    loop {
        let broken = |what: &str| Fault::invalid(format!("the body did not arrive whole: {what}"));
        let next = tokio::time::timeout(patience, body.frame()).await;
        let Some(frame) = next.map_err(|_| broken("nothing came for a while"))? else { break };
        let Ok(piece) = frame.map_err(|error| broken(&error.to_string()))?.into_data() else { continue };
        let taken = tokio::task::spawn_blocking(move || intake.take(&piece).map(|()| intake)).await;
        intake = taken.unwrap_or_else(|_| Err(Fault::internal("taking a body panicked")))?;
    }
    intake.end().await
}
