//! Requests of Azure's clients on the connections that all clients of the service share.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Request, Transport};
use bytes::Bytes;
use hyper::{HeaderMap, http};

use crate::backend::cloud::{self, Undelivered};

/// These connections, for Azure's clients.
pub(super) fn of(connections: cloud::Transport) -> Transport {
    Transport::new(Arc::new(Shared(connections)))
}

#[derive(Debug)]
struct Shared(cloud::Transport);

type Answer<'a> = Pin<Box<dyn Future<Output = azure_core::Result<AsyncRawResponse>> + Send + 'a>>;

impl HttpClient for Shared {
    fn execute_request<'own, 'asked, 'call>(&'own self, request: &'asked Request) -> Answer<'call>
    where
        'own: 'call,
        'asked: 'call,
    {
        Box::pin(async move {
            let answer = self.0.send(asked(request)?).await.map_err(told)?;
            let (head, body) = answer.into_parts();
            Ok(AsyncRawResponse::from_bytes(head.status.as_u16().into(), answered(&head.headers), body))
        })
    }
}

fn asked(request: &Request) -> azure_core::Result<http::Request<Bytes>> {
    let Body::Bytes(body) = request.body() else {
        return Err(Error::with_message(ErrorKind::Other, "a body that is a stream"));
    };
    let mut asked = http::Request::builder().method(request.method().as_str()).uri(request.url().as_str());
    for (name, value) in request.headers().iter() {
        asked = asked.header(name.as_str(), value.as_str());
    }
    asked.body(body.clone()).map_err(|error| Error::new(ErrorKind::Other, error))
}

/// What is no text means nothing to these clients.
fn answered(headers: &HeaderMap) -> Headers {
    let mut known = Headers::new();
    for (name, value) in headers {
        if let Ok(value) = value.to_str() {
            known.insert(name.as_str().to_owned(), value.to_owned());
        }
    }
    known
}

fn told(error: Undelivered) -> Error {
    let kind = match error {
        Undelivered::Unsent(_) => ErrorKind::Other,
        Undelivered::Unconnected(_) | Undelivered::NoTunnel(_) | Undelivered::Again { .. } => ErrorKind::Connection,
        Undelivered::Broken(_) => ErrorKind::Io,
        Undelivered::TooLong => ErrorKind::DataConversion,
    };
    Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use azure_core::http::Method;

    use super::*;
    use crate::backend::azure::fault;
    use crate::backend::cloud::Service;
    use crate::config::KmsService;
    use crate::model::CloudService;
    use crate::telemetry::Telemetry;

    #[test]
    fn a_request_and_its_answer_are_the_same_on_the_way() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys?api-version=7.6", listener.local_addr().unwrap()).parse().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"{\"a\":1}") {
                let mut part = [0; 4096];
                let bytes = stream.read(&mut part).unwrap();
                read.extend_from_slice(&part[..bytes]);
            }
            stream.write_all(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}").unwrap();
            String::from_utf8(read).unwrap()
        });
        let service = Service::start(&KmsService::new(CloudService::AzureKeyVault), &Telemetry::new()).unwrap();
        let client = Shared(service.transport().unwrap());
        let mut request = Request::new(url, Method::Post);
        request.insert_header("authorization", "Bearer token");
        request.set_body("{\"a\":1}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(async {
            let answer = client.execute_request(&request).await.unwrap();
            answer.try_into_raw_response().await.unwrap()
        });
        let asked = server.join().unwrap();
        assert!(asked.starts_with("POST /keys?api-version=7.6 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("authorization: Bearer token\r\n"), "{asked}");
        let retry_after = answer.headers().get_optional_str(&"retry-after".into());
        assert_eq!((u16::from(answer.status()), retry_after, answer.body().as_ref()), (429, Some("7"), &b"{}"[..]));
    }

    #[test]
    fn why_there_is_no_answer_is_told_in_metrics() {
        let again = |cause| Undelivered::Again { cause, why: String::new() };
        for (error, cause) in [
            (Undelivered::TooLong, "unreadable_answer"),
            (Undelivered::Broken("it is gone".into()), "connection"),
            (again("tls"), "tls"),
            (again("timeout"), "timeout"),
        ] {
            assert_eq!(fault::of("sign", "key a", &told(error)).cause, cause);
        }
    }
}
