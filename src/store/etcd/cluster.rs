//! The way to a cluster: one connection, kept, to whichever member answers; and an end to the
//! waiting when none does.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request,
    client::conn::http2::{Builder, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, TE},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout_at,
};

use super::super::unescape;
use super::{
    address::{Address, Endpoint},
    messages::{Authenticate, Authenticated},
    tls::Tls,
};
use crate::error::{Error, Kind, Result, plain};

/// For a call in all, to however many members. A local cluster answers in milliseconds, one that
/// has lost its leader after one to two seconds, when it has elected another.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two rounds through the members.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether a request that was perhaps carried out may be put to another member while it may still
/// be on its way. A write may not: it could be carried out once more long after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    Harmless,
    OnlyIfItEnded,
}

/// The far end of a thread that speaks to the cluster. Stores are used from within containers'
/// namespaces, where no cluster is to be reached; that thread stays in the namespace that the store
/// was opened in.
pub struct Cluster {
    calls: UnboundedSender<Call>,
}

struct Call {
    path: &'static str,
    body: Bytes,
    repeat: Repeat,
    deadline: Instant,
    answer: mpsc::Sender<Result<Bytes>>,
}

impl Cluster {
    /// Nothing is said yet, but that somebody is there may already be looked for.
    pub fn new(address: Address, password: Option<String>, tls: Option<Tls>) -> Result<Cluster> {
        let cannot = |error: std::io::Error| Error::io("cannot start a thread for the store", &error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        let (calls, incoming) = unbounded_channel();
        let line = Line { address, password, tls, token: None, current: 0, connection: None, gone: None };
        std::thread::Builder::new().spawn(move || runtime.block_on(line.serve(incoming))).map_err(cannot)?;
        Ok(Cluster { calls })
    }

    /// Calls a method of etcd's, `/SERVICE/METHOD`.
    pub fn call<A: Message + Default>(&self, path: &'static str, message: &impl Message, repeat: Repeat) -> Result<A> {
        let (answer, answered) = mpsc::channel();
        let call = Call { path, body: framed(message), repeat, deadline: Instant::now() + PATIENCE, answer };
        let ended = || Error::failed("the thread that speaks to etcd has ended: this is a bug");
        self.calls.send(call).map_err(|_| ended())?;
        let answer = answered.recv().map_err(|_| ended())??;
        unframed(&answer)
    }
}

/// A message as gRPC sends it: whether it is compressed, its length in four bytes, and itself (gRPC's
/// doc/PROTOCOL-HTTP2.md).
fn framed(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME + message.encoded_len());
    frame.put_bytes(0, FRAME);
    // A buffer that grows has room for everything.
    let _ = message.encode(&mut frame);
    let length = u32::try_from(frame.len() - FRAME).unwrap_or(u32::MAX);
    frame[1..FRAME].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

fn unframed<A: Message + Default>(frame: &[u8]) -> Result<A> {
    let message = frame.get(FRAME..).filter(|_| frame[0] == 0).ok_or("it is cut off".to_owned());
    message
        .and_then(|message| A::decode(message).map_err(|error| error.to_string()))
        .map_err(|reason| Error::failed(format!("etcd's answer is not understood: {reason}")))
}

const FRAME: usize = 5;

type Connection = SendRequest<Full<Bytes>>;

/// What stands on the thread.
struct Line {
    address: Address,
    password: Option<String>,
    tls: Option<Tls>,
    /// Proof of who we are, once etcd has given it.
    token: Option<String>,
    /// The member that answered last.
    current: usize,
    connection: Option<Connection>,
    /// Why there is no cluster any more: a command shall not wait for each of its calls anew.
    gone: Option<Error>,
}

/// Why a member gave no answer that counts.
enum Trouble {
    /// It was not sent the request.
    Unreached(String),
    /// It did not answer in time.
    Silent,
    /// It said that it cannot now, or ended the connection.
    NotNow(String),
    /// No member will say otherwise.
    Refused(Error),
    /// The token is not, or no longer, good.
    Unknown(Error),
}

impl Line {
    async fn serve(mut self, mut calls: UnboundedReceiver<Call>) {
        let mut next = tokio::select! {
            call = calls.recv() => call,
            // While the caller looks at other things. Who cannot be reached now is told of at a call.
            dialled = dial(&self.address.endpoints[0], self.tls.as_ref()) => {
                self.connection = dialled.ok();
                calls.recv().await
            }
        };
        while let Some(call) = next {
            let answer = self.answer(&call).await;
            // Nobody waits for it only where the process ends.
            let _ = call.answer.send(answer);
            next = calls.recv().await;
        }
    }

    /// Asks the member that answered last and then the others, round by round.
    async fn answer(&mut self, call: &Call) -> Result<Bytes> {
        if let Some(gone) = &self.gone {
            return Err(gone.clone());
        }
        let members = self.address.endpoints.len();
        let mut said = None;
        loop {
            let mut unreached = Vec::new();
            for turn in 0..members {
                let at = (self.current + turn) % members;
                // What is left is for those that are left.
                let left = call.deadline.saturating_duration_since(Instant::now());
                let share = left / u32::try_from(members - turn).unwrap_or(1);
                match self.ask(at, call, Instant::now() + share).await {
                    Ok(answer) => {
                        self.current = at;
                        return Ok(answer);
                    }
                    Err(Trouble::Refused(error) | Trouble::Unknown(error)) => return Err(error),
                    Err(Trouble::Unreached(reason)) => unreached.push(reason),
                    Err(Trouble::NotNow(reason)) => said = Some(reason),
                    Err(Trouble::Silent) if call.repeat == Repeat::OnlyIfItEnded => break,
                    Err(Trouble::Silent) => {}
                }
            }
            if unreached.len() == members {
                return Err(self.gone(unreachable(&self.address, &unreached)));
            }
            if Instant::now() + PAUSE >= call.deadline {
                return Err(self.gone(silent(&self.address, call, said)));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn gone(&mut self, error: Error) -> Error {
        self.gone = Some(error.clone());
        error
    }

    async fn ask(&mut self, at: usize, call: &Call, until: Instant) -> std::result::Result<Bytes, Trouble> {
        self.connect(at, until).await?;
        let until = if call.repeat == Repeat::Harmless { until } else { call.deadline };
        match self.send(at, call.path, call.body.clone(), until).await {
            // Tokens come to an end, five minutes after they were last used.
            Err(Trouble::Unknown(_)) if self.token.take().is_some() => {
                self.authenticate(at, until).await?;
                self.send(at, call.path, call.body.clone(), until).await
            }
            outcome => outcome,
        }
    }

    /// Sees to it that there is a connection to the member, and that it knows who we are.
    async fn connect(&mut self, at: usize, until: Instant) -> std::result::Result<(), Trouble> {
        let is_there = self.current == at && self.connection.as_ref().is_some_and(|connection| !connection.is_closed());
        if !is_there {
            self.connection = None;
            let endpoint = &self.address.endpoints[at];
            let dial = dial(endpoint, self.tls.as_ref());
            let dialled = timeout_at(until.into(), dial).await.map_err(|_| Trouble::Unreached("no answer".into()))?;
            self.connection = Some(dialled.map_err(Trouble::Unreached)?);
            self.current = at;
        }
        if self.address.user.is_some() && self.token.is_none() {
            self.authenticate(at, until).await?;
        }
        Ok(())
    }

    async fn authenticate(&mut self, at: usize, until: Instant) -> std::result::Result<(), Trouble> {
        let (Some(name), Some(password)) = (&self.address.user, &self.password) else { return Ok(()) };
        let body = framed(&Authenticate { name: name.clone(), password: password.clone() });
        let answer = self.send(at, "/etcdserverpb.Auth/Authenticate", body, until).await?;
        let given: Authenticated = unframed(&answer).map_err(Trouble::Refused)?;
        self.token = Some(given.token);
        Ok(())
    }

    async fn send(
        &mut self,
        at: usize,
        path: &'static str,
        body: Bytes,
        until: Instant,
    ) -> std::result::Result<Bytes, Trouble> {
        let endpoint = &self.address.endpoints[at];
        let Some(mut connection) = self.connection.take() else { return Err(Trouble::NotNow("no connection".into())) };
        let uri = format!("http://{endpoint}{path}");
        let mut request = Request::post(uri).header(CONTENT_TYPE, "application/grpc").header(TE, "trailers");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| Trouble::Refused(Error::failed(format!("cannot ask etcd: {error}"))))?;
        let exchange = async {
            connection.ready().await?;
            let (head, body) = connection.send_request(request).await?.into_parts();
            let body = body.collect().await?;
            // Where there is nothing but a status it is in the head.
            let status = Status::of(&head.headers).or_else(|| Status::of(body.trailers()?));
            Ok::<_, hyper::Error>((head.status, status, body.to_bytes()))
        };
        let (http, status, body) = match timeout_at(until.into(), exchange).await {
            Err(_) => return Err(Trouble::Silent),
            Ok(Err(error)) => return Err(broken(endpoint, &error)),
            Ok(Ok(answer)) => answer,
        };
        self.connection = Some(connection);
        match status {
            None => Err(no_etcd(endpoint, &http.to_string())),
            Some(Status { code: 0, .. }) => Ok(body),
            Some(status) => Err(trouble(&self.address, endpoint, &status)),
        }
    }
}

/// How gRPC says that a call ended.
struct Status {
    /// Its number for it (google.rpc.Code); 0: well.
    code: u32,
    message: String,
}

impl Status {
    fn of(fields: &HeaderMap) -> Option<Status> {
        let field = |name| fields.get(name).and_then(|value| value.to_str().ok());
        let message = unescape(field("grpc-message").unwrap_or_default());
        Some(Status { code: field("grpc-status")?.parse().ok()?, message })
    }
}

/// A connection that is ready for requests.
async fn dial(endpoint: &Endpoint, tls: Option<&Tls>) -> std::result::Result<Connection, String> {
    let stream = TcpStream::connect(endpoint.resolve()?).await.map_err(|error| plain(&error))?;
    // Each request is a whole one: nothing is to be waited for that could go along.
    stream.set_nodelay(true).map_err(|error| plain(&error))?;
    match tls {
        Some(tls) => speak(tls.connect(endpoint, stream).await?).await,
        None => speak(stream).await,
    }
}

async fn speak<S>(stream: S) -> std::result::Result<Connection, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let dialled = Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = dialled.await.map_err(|error| error.to_string())?;
    // Its outcome is that of the requests that it carries.
    tokio::spawn(async { drop(connection.await) });
    Ok(sender)
}

/// So much of an answer may be on its way, in bytes: a page of claims is about a megabyte.
const WINDOW: u32 = 1 << 21;

/// The connection ended before the answer did.
fn broken(endpoint: &Endpoint, error: &hyper::Error) -> Trouble {
    let cause = std::iter::successors(std::error::Error::source(error), |cause| cause.source()).last();
    let text = match cause.and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
        Some(error) => plain(error),
        None => cause.map_or_else(|| error.to_string(), ToString::to_string),
    };
    // With TLS 1.3 a server looks at our certificate when we believe that all is well already.
    if text.contains("received fatal alert") {
        return Trouble::Refused(
            Error::not_permitted(format!("etcd at {endpoint} refused the connection: {text}"))
                .hint("it wants a client's certificate that its authority has signed: --store-cert and --store-key"),
        );
    }
    // What is not understood as HTTP/2.
    if text.contains("frame with invalid size") || text.contains("protocol error") {
        return no_etcd(endpoint, "it does not speak HTTP/2");
    }
    Trouble::NotNow(text)
}

fn no_etcd(endpoint: &Endpoint, reason: &str) -> Trouble {
    let error = Error::failed(format!("what answers at {endpoint} is no etcd: {reason}"));
    Trouble::Refused(error.hint("etcd 3.4 or later is needed; one that wants TLS is written etcds://"))
}

/// What an answer other than OK means, by gRPC's numbers for it.
fn trouble(address: &Address, endpoint: &Endpoint, status: &Status) -> Trouble {
    const INVALID: u32 = 3;
    const PERMISSION_DENIED: u32 = 7;
    const UNAVAILABLE: u32 = 14;
    const UNAUTHENTICATED: u32 = 16;
    let user = address.user.as_deref();
    let message = status.message.trim_start_matches("etcdserver: ");
    let denied = |hint: String| Error::not_permitted(format!("etcd at {endpoint}: {message}")).hint(hint);
    match status.code {
        UNAVAILABLE => Trouble::NotNow(message.to_owned()),
        UNAUTHENTICATED => Trouble::Unknown(denied("the user's token did not hold; run the command again".into())),
        INVALID if message.contains("revision of auth store is old") => {
            Trouble::Unknown(denied("the cluster's users are being changed; run the command again".into()))
        }
        INVALID if message.contains("user name is empty") => Trouble::Refused(denied(
            "write etcd://USER@HOST, and the password in PLUMB_STORE_PASSWORD or in a file, --store-password-file"
                .into(),
        )),
        INVALID if message.contains("authentication") => Trouble::Refused(match user {
            Some(_) if message.contains("not enabled") => denied("leave the user out of the store's address".into()),
            _ => denied("look at the user in the store's address and at the password".into()),
        }),
        PERMISSION_DENIED => Trouble::Refused(denied(format!(
            "{} needs: etcdctl role grant-permission ROLE readwrite --prefix=true {}/",
            user.unwrap_or("the user"),
            address.prefix
        ))),
        _ => Trouble::Refused(Error::failed(format!("etcd at {endpoint}: {message}"))),
    }
}

/// Nobody is there.
fn unreachable(address: &Address, reasons: &[String]) -> Error {
    // The same for all in most cases, and then said once.
    let mut reasons: Vec<&str> = reasons.iter().map(String::as_str).collect();
    reasons.dedup();
    let kind = if reasons == ["no answer"] { Kind::TimedOut } else { Kind::Failed };
    let message = match kind {
        Kind::TimedOut => no_answer(address),
        _ => format!("cannot reach etcd at {}: {}", address.endpoints_text(), reasons.join("; ")),
    };
    Error::new(kind, message)
        .hint("does the cluster run, and is it reached from here? another store is named with --store")
}

fn silent(address: &Address, call: &Call, said: Option<String>) -> Error {
    let said = said.map(|said| format!(": {said}")).unwrap_or_default();
    let message = no_answer(address) + &said;
    Error::timed_out(message).hint(match call.repeat {
        Repeat::Harmless if said.is_empty() || address.encrypted => {
            "does the cluster run, with more than half of its members?"
        }
        Repeat::Harmless => {
            "does the cluster run, with more than half of its members? one that wants TLS is written etcds://"
        }
        Repeat::OnlyIfItEnded => "when the cluster is back: plumb gc, as it may have kept what it did not answer to",
    })
}

fn no_answer(address: &Address) -> String {
    format!("no etcd answered at {} within {} s", address.endpoints_text(), PATIENCE.as_secs())
}
