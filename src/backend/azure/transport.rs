//! Connections of every client of this backend, and how much of an answer is read.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use azure_core::error::{Error, ErrorKind};
use azure_core::http::{AsyncRawResponse, HttpClient, Request, Transport};
use futures_util::StreamExt;

use crate::backend::cloud::{ANSWER_MAX, innermost};
use crate::config::KmsService;

/// Connections that are idle are kept so long: a handshake takes longer than a call.
const IDLE: Duration = Duration::from_secs(300);

/// Connections with these settings.
pub(super) fn transport(settings: &KmsService) -> Result<Transport, String> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(settings.call)
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true)
        // The service sends nobody elsewhere, and tokens are not to follow.
        .redirect(reqwest::redirect::Policy::none());
    if let Some(pem) = &settings.ca_certificates {
        let trusted = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| format!("ca_file: {error}"))?;
        builder = builder.tls_certs_merge(trusted);
    }
    let client = builder.build().map_err(|error| format!("TLS cannot be set up: {}", innermost(&error)))?;
    Ok(Transport::new(Arc::new(Bounded(client))))
}

/// A client that reads no more of an answer than there may be.
#[derive(Debug)]
struct Bounded(reqwest::Client);

type Answer<'a> = Pin<Box<dyn Future<Output = azure_core::Result<AsyncRawResponse>> + Send + 'a>>;

impl HttpClient for Bounded {
    fn execute_request<'own, 'asked, 'call>(&'own self, request: &'asked Request) -> Answer<'call>
    where
        'own: 'call,
        'asked: 'call,
    {
        Box::pin(async move {
            let (status, headers, mut body) = self.0.execute_request(request).await?.deconstruct();
            let mut read = Vec::new();
            while let Some(part) = body.next().await {
                let part = part?;
                if read.len() + part.len() > ANSWER_MAX {
                    let what = format!("an answer of more than {ANSWER_MAX} bytes");
                    return Err(Error::with_message(ErrorKind::DataConversion, what));
                }
                read.extend_from_slice(&part);
            }
            Ok(AsyncRawResponse::from_bytes(status, headers, read))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use azure_core::http::Method;

    use super::*;

    /// The length of what is read of an answer that has so many bytes.
    fn read(bytes: usize) -> azure_core::Result<usize> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
            // Whoever has read enough hangs up.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![7; bytes]));
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let request = Request::new(url, Method::Get);
        let client = Bounded(reqwest::Client::builder().no_proxy().build().unwrap());
        let answer = runtime.block_on(async {
            let answer = client.execute_request(&request).await?.try_into_raw_response().await?;
            Ok(answer.body().as_ref().len())
        });
        drop((client, runtime));
        server.join().unwrap();
        answer
    }

    #[test]
    fn no_more_of_an_answer_is_read_than_there_may_be() {
        assert_eq!(read(ANSWER_MAX).unwrap(), ANSWER_MAX);
        assert!(read(ANSWER_MAX * 8).unwrap_err().to_string().contains("an answer of more than"));
    }
}
