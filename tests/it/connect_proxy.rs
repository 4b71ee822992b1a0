//! A proxy such as stands between a company's hosts and the internet: it makes tunnels (CONNECT; RFC 9110, 9.3.6) to the cloud of a
//! story, by whatever name that is asked for, writes down what it sees, refuses, ends tunnels, and is gone for a while.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, oneshot};

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 22;

/// A running proxy; it ends with this.
pub(crate) struct ConnectProxy {
    pub(crate) address: SocketAddr,
    rules: Arc<Rules>,
    /// While it is gone, its port alone, which nobody else is to get.
    serving: Result<Serving, TcpSocket>,
}

/// What it does, and what it has seen.
struct Rules {
    /// The `Proxy-Authorization` that it wants.
    authorization: Option<String>,
    refusal: Mutex<Option<u16>>,
    seen: Mutex<Seen>,
    cut: Notify,
}

/// What a proxy has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Where tunnels were made to, with the port.
    pub(crate) tunnels: Vec<String>,
    /// How many were refused.
    pub(crate) refused: usize,
    /// What is none of its business: requests but for tunnels, what is not TLS in one, and others' credentials.
    pub(crate) strays: Vec<String>,
}

impl ConnectProxy {
    /// Starts one. With a user and a password it takes nobody without them.
    pub(crate) fn start(user: Option<(&str, &str)>) -> ConnectProxy {
        let (socket, address) = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let rules = Arc::new(Rules {
            authorization: user
                .map(|(user, password)| format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))),
            refusal: Mutex::default(),
            seen: Mutex::default(),
            cut: Notify::new(),
        });
        let serving = Ok(Serving::start(socket, &rules));
        ConnectProxy { address, rules, serving }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.rules.seen.lock().unwrap().clone()
    }

    /// Ends all tunnels, and refuses others with this status.
    pub(crate) fn refuse(&self, status: u16) {
        *self.rules.refusal.lock().unwrap() = Some(status);
        self.cut();
    }

    /// Refuses none any more.
    pub(crate) fn allow(&self) {
        *self.rules.refusal.lock().unwrap() = None;
    }

    /// Ends all tunnels.
    pub(crate) fn cut(&self) {
        self.rules.cut.notify_waiters();
    }

    /// Is gone, with all tunnels.
    pub(crate) fn leave(&mut self) {
        // What held the port is gone before it is bound again.
        if let Ok(serving) = &mut self.serving {
            serving.end();
        }
        self.serving = Err(bound(self.address).0);
    }

    /// Is there again.
    pub(crate) fn come_back(self) -> ConnectProxy {
        let ConnectProxy { address, rules, serving } = self;
        let serving = serving.or_else(|socket| Ok(Serving::start(socket, &rules)));
        ConnectProxy { address, rules, serving }
    }
}

/// A port that is held, and where nobody listens yet.
fn bound(address: SocketAddr) -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// The thread of a proxy that is there. A story may block its own.
struct Serving {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    fn start(socket: TcpSocket, rules: &Arc<Rules>) -> Serving {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = {
            let _within = runtime.enter();
            socket.listen(128).unwrap()
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let rules = Arc::clone(rules);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, rules) => {}
                }
            });
        });
        Serving { stop: Some(stop), thread: Some(thread) }
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end();
    }
}

async fn accept(listener: TcpListener, rules: Arc<Rules>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let rules = Arc::clone(&rules);
        tokio::spawn(async move {
            // Before anything is asked of the rules, or one that is let through might not be cut.
            let cut = rules.cut.notified();
            tokio::select! {
                // Either side may end it as it likes.
                _ = serve(client, &rules) => {}
                () = cut => {}
            }
        });
    }
}

async fn serve(mut client: TcpStream, rules: &Rules) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let asked = head.strip_prefix("CONNECT ").and_then(|rest| rest.split_once(' ')).map(|(to, _)| to.to_owned());
    let to = match asked {
        Some(to) if !head.to_lowercase().contains("\r\nauthorization:") => to,
        _ => {
            rules.seen.lock().unwrap().strays.push(head);
            return Ok(());
        }
    };
    let known = |wanted: &String| head.contains(&format!("\r\nProxy-Authorization: {wanted}\r\n"));
    let unknown = rules.authorization.as_ref().is_some_and(|wanted| !known(wanted)).then_some(407);
    let refusal = rules.refusal.lock().unwrap().or(unknown);
    if let Some(status) = refusal {
        rules.seen.lock().unwrap().refused += 1;
        return client.write_all(format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
    }
    let port = to.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
    let mut service = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    rules.seen.lock().unwrap().tunnels.push(to.clone());
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    let mut first = [HANDSHAKE];
    client.peek(&mut first).await?;
    if first != [HANDSHAKE] {
        rules.seen.lock().unwrap().strays.push(format!("{first:?} to {to}"));
        return Ok(());
    }
    copy_bidirectional(&mut client, &mut service).await.map(|_| ())
}
