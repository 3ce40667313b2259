//! The way out for the fetch of inputs: an HTTP proxy (RFC 9110, section 9.3.6; RFC 9112, section 3.2.2) that connects to public
//! addresses, and to the hosts that the configuration names.
//!
//! An input's server may redirect anywhere, and a name may have another address at each question. The proxy asks for the address once,
//! decides, and connects to that one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::model::{InputPolicy, RefusedInput, is_private};
use crate::process::Invocation;

/// The most bytes of the head of a request.
const MAX_HEAD: usize = 32 << 10;
/// The longest time to send that head, and to connect.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// The variables of curl and git that name a proxy, and those that make exceptions from it.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const EXCEPTIONS: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// A running proxy. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Egress {
    address: SocketAddr,
    refused: Arc<Mutex<Option<RefusedInput>>>,
    task: JoinHandle<()>,
}

impl Drop for Egress {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Egress {
    /// Starts a proxy for one fetch. There is none where the environment names a proxy already, which then decides where a fetch
    /// may go.
    pub(super) async fn open(policy: &InputPolicy) -> std::io::Result<Option<Self>> {
        if PROXIES.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
            return Ok(None);
        }
        Self::start(policy).await.map(Some)
    }

    async fn start(policy: &InputPolicy) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, refused) = (listener.local_addr()?, Arc::<Mutex<Option<RefusedInput>>>::default());
        let (policy, told) = (policy.clone(), Arc::clone(&refused));
        let task = tokio::spawn(async move {
            // The connections end with this task.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (policy, told) = (policy.clone(), Arc::clone(&told));
                connections.spawn(async move {
                    if let Some(refusal) = serve(client, &policy).await {
                        told.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refusal);
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, refused, task })
    }

    /// The same run, whose HTTP goes through this proxy.
    pub(super) fn give_to(&self, run: Invocation) -> Invocation {
        let url = format!("http://{}", self.address);
        let run = PROXIES.iter().fold(run, |run, name| run.env(*name, &url));
        EXCEPTIONS.iter().fold(run, |run, name| run.env(*name, ""))
    }

    /// The first connection that was refused.
    pub(super) fn refused(&self) -> Option<RefusedInput> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    /// A connection, inside of which it speaks TLS.
    Tunnel { host: String, port: u16 },
    /// A plain request, whose head is passed on.
    Plain { host: String, port: u16, head: Vec<u8> },
}

/// Serves one connection to its end. Returns the reason where it was refused.
async fn serve(mut client: TcpStream, policy: &InputPolicy) -> Option<RefusedInput> {
    let (head, rest) = timeout(MAX_WAIT, read_head(&mut client)).await.ok()??;
    let request = parse(&head)?;
    let (host, port) = match &request {
        Request::Tunnel { host, port } | Request::Plain { host, port, .. } => (host.as_str(), *port),
    };
    let is_plain = matches!(request, Request::Plain { .. });
    let target = match connect(host, port, is_plain, policy).await {
        Ok(Some(stream)) => Ok(stream),
        Ok(None) => Err(("502 Bad Gateway", None)),
        Err(refusal) => Err(("403 Forbidden", Some(refusal))),
    };
    let mut target = match target {
        Ok(target) => target,
        Err((status, refusal)) => {
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = client.write_all(answer.as_bytes()).await;
            return refusal;
        }
    };
    let first = match &request {
        Request::Tunnel { .. } => client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await,
        Request::Plain { head, .. } => target.write_all(head).await,
    };
    first.ok()?;
    target.write_all(&rest).await.ok()?;
    let _ = copy_bidirectional(&mut client, &mut target).await;
    None
}

/// A connection to `host`, where it may be reached; `None` where it does not answer.
async fn connect(
    host: &str,
    port: u16,
    is_plain: bool,
    policy: &InputPolicy,
) -> Result<Option<TcpStream>, RefusedInput> {
    let is_named = policy.names_host(host);
    if is_plain && !policy.allows_plain_http(host) {
        return Err(RefusedInput::Scheme { origin: format!("http://{host}"), scheme: "http".to_owned() });
    }
    let found = timeout(MAX_WAIT, tokio::net::lookup_host((host, port))).await;
    let Ok(Ok(addresses)) = found else { return Ok(None) };
    let addresses: Vec<SocketAddr> = addresses.collect();
    if let Some(address) = addresses.iter().map(SocketAddr::ip).find(|address: &IpAddr| is_private(*address))
        && !is_named
    {
        return Err(RefusedInput::Private { host: host.to_owned(), address });
    }
    // The addresses that were looked at, and not what the name has by now.
    Ok(timeout(MAX_WAIT, TcpStream::connect(&addresses[..])).await.ok().and_then(Result::ok))
}

/// The head of a request, and what came after it.
async fn read_head(client: &mut TcpStream) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        let end = read.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let rest = read.split_off(end + 4);
            return Some((read, rest));
        }
        if read.len() > MAX_HEAD || client.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

fn parse(head: &[u8]) -> Option<Request> {
    let head = std::str::from_utf8(head).ok()?;
    let (first, headers) = head.split_once("\r\n")?;
    let mut words = first.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if method == "CONNECT" {
        let (host, port) = authority(target, None)?;
        return Some(Request::Tunnel { host, port });
    }
    let rest = target.strip_prefix("http://")?;
    let (name, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
    let slash = if path.starts_with('/') { "" } else { "/" };
    let (host, port) = authority(name, Some(80))?;
    // The next request on this connection may be for another host, which has not been looked at.
    let is_kept = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default();
        !["connection", "proxy-connection", "keep-alive"].iter().any(|other| name.eq_ignore_ascii_case(other))
    };
    let first = format!("{method} {slash}{path} {version}");
    let kept = headers.lines().filter(|line| !line.is_empty()).filter(is_kept);
    let lines: Vec<&str> = [first.as_str()].into_iter().chain(kept).chain(["Connection: close", "", ""]).collect();
    let head = lines.join("\r\n").into_bytes();
    Some(Request::Plain { host, port, head })
}

/// A host and a port. A host with a user is none.
fn authority(text: &str, default: Option<u16>) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        Some(_) | None => (text, default?),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_host = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b));
    is_host.then(|| (host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_host_and_a_plain_one_is_passed_on_alone() {
        let tunnel = |host: &str, port| Some(Request::Tunnel { host: host.to_owned(), port });
        assert_eq!(parse(b"CONNECT Example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n"), tunnel("example.org", 443));
        assert_eq!(parse(b"CONNECT [::1]:8443 HTTP/1.1\r\n\r\n"), tunnel("::1", 8443));
        for bad in [
            &b"CONNECT example.org HTTP/1.1\r\n\r\n"[..],
            b"CONNECT me@example.org:443 HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET ftp://x/ HTTP/1.1\r\n\r\n",
            b"GET http:///x HTTP/1.1\r\n\r\n",
            b"\xff\r\n\r\n",
        ] {
            assert_eq!(parse(bad), None);
        }
        let plain = parse(b"GET http://h:81?a HTTP/1.1\r\nHost: h\r\nProxy-Connection: Keep-Alive\r\nA: b\r\n\r\n");
        let head = b"GET /?a HTTP/1.1\r\nHost: h\r\nA: b\r\nConnection: close\r\n\r\n".to_vec();
        assert_eq!(plain, Some(Request::Plain { host: "h".to_owned(), port: 81, head }));
    }

    /// The answer of a proxy with this policy to `request`.
    async fn answer(policy: &InputPolicy, request: &str) -> (String, Option<RefusedInput>) {
        let egress = Egress::start(policy).await.unwrap();
        let mut stream = TcpStream::connect(egress.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        (said, egress.refused())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn it_leads_to_a_host_of_this_machine_only_where_the_configuration_names_it() {
        let service = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = service.local_addr().unwrap().port();
        let default = InputPolicy::default();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"] {
            let (said, refused) = answer(&default, &format!("CONNECT {host}:{port} HTTP/1.1\r\n\r\n")).await;
            assert!(said.starts_with("HTTP/1.1 403"), "{host}: {said}");
            assert!(matches!(refused, Some(RefusedInput::Private { .. })), "{host}: {refused:?}");
        }
        let (said, refused) = answer(&default, &format!("GET http://127.0.0.1:{port}/ HTTP/1.1\r\n\r\n")).await;
        assert!(said.starts_with("HTTP/1.1 403") && matches!(refused, Some(RefusedInput::Scheme { .. })), "{said}");
        assert!(timeout(Duration::ZERO, service.accept()).await.is_err(), "something was asked");

        let named = InputPolicy::from(vec!["http://127.0.0.1".parse().unwrap()]);
        let asked = tokio::spawn(async move {
            let (mut client, _) = service.accept().await.unwrap();
            let (head, _) = read_head(&mut client).await.unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await.unwrap();
            String::from_utf8(head).unwrap()
        });
        let (said, refused) = answer(&named, &format!("GET http://127.0.0.1:{port}/x HTTP/1.1\r\n\r\n")).await;
        assert!(said.ends_with("hello") && refused.is_none(), "{said}");
        assert_eq!(asked.await.unwrap(), "GET /x HTTP/1.1\r\nConnection: close\r\n\r\n");
    }
}
