use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use actix_ws::{MessageStream, Session};
use serde_json::{Map, Value};

use super::assembly::Bounds;
use super::connection::Connection;
use super::excess::{Excess, ExcessHandler, OnExcess};
use super::messages::ThrottledMessages;
use super::rule::WsRule;
use super::spent::OnSpent;
use crate::concurrency::limit::ConcurrencyLimit;
use crate::throttle::HttpThrottle;
use crate::throttle::backend::ThrottleBackend;

/// Limits the messages that the clients of a WebSocket send.
///
/// Use [`handle`](WsThrottle::handle) in the place of [`actix_ws::handle`] and read from what it returns:
///
/// ```no_run
/// use actix_web::{App, HttpRequest, HttpResponse, HttpServer, get, web};
/// use traffik_actix::actix_ws::AggregatedMessage;
/// use traffik_actix::{HttpThrottle, ThrottleMiddleware, WsThrottle};
///
/// #[get("/ws")]
/// async fn echo(req: HttpRequest, body: web::Payload, limits: web::Data<WsThrottle>)
/// -> actix_web::Result<HttpResponse> {
///     let (response, mut session, mut messages) = limits.handle(&req, body).await?;
///     actix_web::rt::spawn(async move {
///         while let Some(Ok(message)) = messages.recv().await {
///             let answered = match message {
///                 AggregatedMessage::Text(text) => session.text(text).await,
///                 AggregatedMessage::Ping(bytes) => session.pong(&bytes).await,
///                 AggregatedMessage::Close(reason) => return session.close(reason).await,
///                 _ => Ok(()),
///             };
///             answered?;
///         }
///         session.close(None).await
///     });
///     Ok(response)
/// }
///
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Handshakes are requests, and are limited like any other.
/// let handshakes = HttpThrottle::builder("handshakes").rate("20/minute").build()?;
/// let messages = HttpThrottle::builder("messages").rate("5/second").build()?;
/// let limits = web::Data::new(WsThrottle::new(messages));
///
/// HttpServer::new(move || {
///     App::new()
///         .app_data(limits.clone())
///         .wrap(ThrottleMiddleware::new(handshakes.clone()))
///         .service(echo)
/// })
/// .bind(("127.0.0.1", 8080))?
/// .run()
/// .await?;
/// # Ok(())
/// # }
/// ```
///
/// **Who asks** is found out once, from the handshake, as for any request, until
/// [`identify_as`](crate::ThrottledSession::identify_as) says otherwise. All connections of a client
/// share one count, in all processes that share a backend, unless a rule is
/// [per connection](WsRule::per_connection). All rules that a message meets are one decision: all admit it
/// and are charged, or none is.
///
/// **Everything counts** except the frame that closes a connection: texts, binaries, pings (each wants
/// an answer) and pongs. A message in several fragments counts once, when it is complete, and its cost
/// is that of the whole, or of its [frames](WsRule::per_frame); how large it may be and in how many fragments is
/// [bounded](WsThrottle::max_message_size). Rules can tell kinds apart.
///
/// **A message beyond its limits** is dropped and the client told so, at most once per announced wait;
/// or what [`on_excess`](WsThrottle::on_excess) says. A throttle with
/// [`wait_up_to`](crate::HttpThrottleBuilder::wait_up_to) holds it back until its time instead,
/// and decides nothing more meanwhile.
///
/// **When a limit cannot be checked** because the store fails, the throttle's [`OnError`](crate::OnError)
/// decides about each message; what is raised closes the connection with code 1011.
///
/// **When the handshake makes no sense** to a function that should say who asks, at what cost or under
/// which rate, it is refused with 400, or what the function's `actix_web::Error` says. Only an error handler
/// may let it in nevertheless. Then the functions are asked again with the next message, and the
/// handler, too; what it does not admit closes the connection, with code 1008, or 1011 if the function's
/// error was a 5xx.
#[derive(Clone, Debug)]
#[doc(alias = "WebSocketThrottle")]
pub struct WsThrottle(Arc<Settings>);

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) rules: Vec<WsRule>,
    pub(crate) backend: Option<ThrottleBackend>,
    pub(crate) on_excess: Option<ExcessHandler>,
    pub(crate) on_spent: OnSpent,
    pub(crate) extras: Map<String, Value>,
    pub(crate) close_after: Option<u32>,
    pub(crate) bounds: Bounds,
    pub(crate) connections: Option<ConcurrencyLimit>,
}

impl WsThrottle {
    /// Applies a throttle or a rule.
    pub fn new(rule: impl Into<WsRule>) -> WsThrottle {
        WsThrottle(Arc::new(Settings {
            rules: vec![rule.into()],
            backend: None,
            on_excess: None,
            on_spent: OnSpent::default(),
            extras: Map::new(),
            close_after: None,
            bounds: Bounds::default(),
            connections: None,
        }))
    }

    /// Applies another throttle or rule as well.
    ///
    /// # Panics
    ///
    /// If another rule has a throttle of the same name, strategy and scope, so that both share their
    /// counts, but of another rate: one of the limits would not hold.
    pub fn rule(self, rule: impl Into<WsRule>) -> WsThrottle {
        let rule = rule.into();
        let alike = |other: &&WsRule| other.per_connection == rule.per_connection;
        for other in self.0.rules.iter().filter(alike) {
            rule.throttle.must_agree_with(&other.throttle);
        }
        self.with(|settings| settings.rules.push(rule))
    }

    /// Applies a throttle or a rule to what is sent to clients through a [`ThrottledSession`](crate::ThrottledSession): frames,
    /// or bytes with [`per_byte`](WsRule::per_byte). Several are one decision, as are those of what comes in.
    ///
    /// ```
    /// use std::time::Duration;
    /// use traffik_actix::{HttpThrottle, OnSpent, WsRule, WsThrottle};
    ///
    /// let messages = HttpThrottle::builder("messages").rate("5/second").build()?;
    /// // A megabyte per minute to each client; what is beyond waits for a second, and is dropped then.
    /// let sent = HttpThrottle::builder("sent").rate("1000000/minute").wait_up_to(Duration::from_secs(1));
    /// let limits = WsThrottle::new(messages)
    ///     .outgoing(WsRule::new(sent.build()?).per_byte())
    ///     .on_spent(OnSpent::Discard);
    /// # let _ = limits;
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    ///
    /// Everything counts but the frame that closes, and the notices about [excess](OnExcess::Notify). What is sent through
    /// the `Session` of actix-ws does not. A throttle that is in a rule for what comes in as well counts both together.
    ///
    /// # Panics
    ///
    /// As [`rule`](WsThrottle::rule).
    pub fn outgoing(self, rule: impl Into<WsRule>) -> WsThrottle {
        let mut rule = rule.into();
        rule.outgoing = true;
        self.rule(rule)
    }

    /// Sets what becomes of messages to clients that are beyond those limits. Default: [`OnSpent::Fail`].
    pub fn on_spent(self, on_spent: OnSpent) -> WsThrottle {
        self.with(|settings| settings.on_spent = on_spent)
    }

    /// Sets the backend of throttles that have none of their own. Default: that of the application, else
    /// the memory of this process.
    pub fn backend(self, backend: impl Into<ThrottleBackend>) -> WsThrottle {
        self.with(|settings| settings.backend = Some(backend.into()))
    }

    /// Sets what to do about messages beyond their limits. Default: what the
    /// [backend](ThrottleBackend::on_excess) of the throttle that denied says, else [`OnExcess::Notify`].
    pub fn on_excess(self, on_excess: OnExcess) -> WsThrottle {
        self.with(|settings| settings.on_excess = Some(ExcessHandler::Fixed(on_excess)))
    }

    /// Sets an async function that decides what to do, and may answer by itself:
    ///
    /// ```
    /// use traffik_actix::{Excess, HttpThrottle, OnExcess, WsThrottle};
    ///
    /// let messages = HttpThrottle::builder("messages").rate("5/second").build()?;
    /// let limits = WsThrottle::new(messages).on_excess_by(async |excess: &Excess<'_>| {
    ///     if excess.in_a_row > 100 {
    ///         return OnExcess::Close;
    ///     }
    ///     let _ = excess.session().text("slow down").await;
    ///     OnExcess::Discard
    /// });
    /// # let _ = limits;
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    ///
    /// Nothing is read from the connection until it returns.
    pub fn on_excess_by<F>(self, on_excess: F) -> WsThrottle
    where
        F: AsyncFn(&Excess<'_>) -> OnExcess + Send + Sync + 'static,
    {
        self.with(|settings| settings.on_excess = Some(ExcessHandler::new(on_excess)))
    }

    /// Adds a field to the [notices](Excess::notice) of this throttle, or replaces one.
    pub fn extra(self, name: impl Into<String>, value: impl Into<Value>) -> WsThrottle {
        self.with(|settings| {
            settings.extras.insert(name.into(), value.into());
        })
    }

    /// Closes a connection whose messages were beyond their limits so many times in a row, with code
    /// 1008. Messages that were denied because a backend failed do not count. Default: never.
    pub fn close_after(self, denials: u32) -> WsThrottle {
        self.with(|settings| settings.close_after = Some(denials))
    }

    /// Sets how many bytes a message may have; one that has more closes its connection with code 1009.
    /// Default: 1 MiB.
    pub fn max_message_size(self, bytes: usize) -> WsThrottle {
        self.with(|settings| settings.bounds.bytes = bytes)
    }

    /// Sets in how many fragments a message may come; one in more closes its connection with code 1009.
    /// Default: 64, enough for browsers, which split messages of a hundred kilobytes or more.
    pub fn max_fragments(self, fragments: u32) -> WsThrottle {
        self.with(|settings| settings.bounds.fragments = fragments)
    }

    /// Sets how many connections there may be at a time, of each client or of all. One more is refused, as the limit
    /// says. A connection counts until its [`ThrottledMessages`] are dropped.
    ///
    /// ```
    /// use traffik_actix::{ConcurrencyLimit, HttpThrottle, WsThrottle};
    ///
    /// let messages = HttpThrottle::builder("messages").rate("5/second").build()?;
    /// let tabs = ConcurrencyLimit::builder("tabs").in_flight(4).build()?;
    /// let limits = WsThrottle::new(messages).connections(tabs);
    /// # let _ = limits;
    /// # Ok::<(), traffik_actix::Error>(())
    /// ```
    pub fn connections(self, limit: ConcurrencyLimit) -> WsThrottle {
        self.with(|settings| settings.connections = Some(limit))
    }

    /// Begins a WebSocket: [`actix_ws::handle`] with limits.
    ///
    /// # Errors
    ///
    /// If the request is no handshake, if the throttles [cannot make sense](crate::Unresolved) of it, or if there are
    /// too many [connections](WsThrottle::connections).
    pub async fn handle(
        &self,
        req: &HttpRequest,
        body: web::Payload,
    ) -> actix_web::Result<(HttpResponse, Session, ThrottledMessages)> {
        let (response, session, messages) = actix_ws::handle(req, body)?;
        let messages = messages.max_frame_size(self.0.bounds.bytes);
        let messages = self.wrap(req, session.clone(), messages).await?;
        Ok((response, session, messages))
    }

    /// Limits the messages of a WebSocket that was begun in another way, such as with
    /// [`actix_ws::handle_with_protocols`].
    ///
    /// # Errors
    ///
    /// If the throttles cannot make sense of the request, or there are too many, as [`handle`](WsThrottle::handle).
    pub async fn wrap(
        &self,
        req: &HttpRequest,
        session: Session,
        messages: MessageStream,
    ) -> actix_web::Result<ThrottledMessages> {
        let in_flight = match &self.0.connections {
            Some(limit) => Some(limit.acquire(req).await?),
            None => None,
        };
        let connection = Connection::open(Arc::clone(&self.0), req, session).await?;
        Ok(ThrottledMessages::new(connection, messages, in_flight))
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> WsThrottle {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl From<HttpThrottle> for WsThrottle {
    fn from(throttle: HttpThrottle) -> Self {
        WsThrottle::new(throttle)
    }
}
