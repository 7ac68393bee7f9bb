//! Every bound of the data plane, with its unit and its reason. Relations between bounds are checked when compiling.
//! What bounds the parsers of `wire` whoever uses them stands there, beside what it bounds, and is only listed here.
//!
//! A bound that Envoy also has keeps Envoy's default unless the reason says why not. Where configuration may set
//! a value, the constant is either the default (`_DEFAULT`) or the most that is accepted (`_MAX`).

use core::time::Duration;

// ---- request and response heads -------------------------------------------------------------------------------

/// Largest receive buffer, in bytes. A buffer belongs to a connection only while bytes are expected on it, so idle
/// connections do not pay for this. Between two connections a body is held in one of these each way: reading stops until
/// the other side took what is there, and this is the back-pressure.
pub const RECV_BUFFER_BYTES: usize = 64 * 1024;

/// Longest request head, in bytes; also the default (Envoy: `max_request_headers_kb`, 60). A head is parsed where it
/// lies, so it must fit one receive buffer; more than this cannot be configured.
pub const REQUEST_HEAD_BYTES_MAX: usize = 60 * 1024;
const _: () = assert!(REQUEST_HEAD_BYTES_MAX <= RECV_BUFFER_BYTES);

/// Longest response head, in bytes, for the same reason as [`REQUEST_HEAD_BYTES_MAX`].
pub const RESPONSE_HEAD_BYTES_MAX: usize = 60 * 1024;
const _: () = assert!(RESPONSE_HEAD_BYTES_MAX <= RECV_BUFFER_BYTES);

/// Header lines in one head unless configured otherwise (Envoy: `max_headers_count`), and in a trailer section. Steps that
/// search a head are linear in this.
pub const HEADERS_COUNT_DEFAULT: usize = 100;

/// Most header lines in one head that may be configured.
pub const HEADERS_COUNT_MAX: usize = wire::http1::parse::HEADERS_COUNT_MAX;
const _: () = assert!(HEADERS_COUNT_DEFAULT <= HEADERS_COUNT_MAX);

pub use wire::http1::{body::EXTENSION_BYTES_MAX, conn::INTERIM_COUNT_MAX, parse::METHOD_BYTES_MAX};
const _: () = assert!(METHOD_BYTES_MAX < REQUEST_HEAD_BYTES_MAX);

/// Longest trailer section, in bytes.
pub const TRAILERS_BYTES_MAX: usize = 16 * 1024;
const _: () = assert!(EXTENSION_BYTES_MAX < TRAILERS_BYTES_MAX && TRAILERS_BYTES_MAX <= RECV_BUFFER_BYTES);

/// Longest request target that a path rewrite may produce, in bytes. A substitution that repeats a group can grow
/// without end; what is longer than this could not be a head that we would accept ourselves.
pub const REWRITTEN_TARGET_BYTES_MAX: usize = REQUEST_HEAD_BYTES_MAX;

/// Longest `location` of a redirect, in bytes: a rewritten target behind a scheme and an authority.
pub const LOCATION_BYTES_MAX: usize = 2 * REQUEST_HEAD_BYTES_MAX;
const _: () = assert!(LOCATION_BYTES_MAX > REWRITTEN_TARGET_BYTES_MAX);

pub use wire::tls_sniff::HELLO_BYTES_MAX;
const _: () = assert!(HELLO_BYTES_MAX <= RECV_BUFFER_BYTES);

// ---- bodies ---------------------------------------------------------------------------------------------------

/// Longest body of a direct response, in bytes (Envoy: `max_direct_response_body_size_bytes`, its default). It is
/// sent in one piece.
pub const DIRECT_RESPONSE_BODY_BYTES_MAX: usize = 4096;

/// What the kernel may hold of a connection that it has not sent yet, in bytes, before it takes no more (Envoy:
/// `per_connection_buffer_limit_bytes`, 1 MiB). It is all that a client who does not read holds in the kernel; the kernel's
/// own bound is 4 MB. Twice a receive buffer: while one goes out, the next is queued behind it.
pub const UNSENT_BYTES_DEFAULT: u32 = 2 * RECV_BUFFER_BYTES as u32;

// ---- HTTP/2 ----------------------------------------------------------------------------------------------------

/// Streams at a time that a downstream connection is told it may have (Envoy: `max_concurrent_streams`, 1024). RFC 9113
/// §6.5.2 wants no less than this. Each stream is an exchange with its buffers, and an end that resets what it has just asked
/// for makes work for each, so ten times as many are ten times the harm of one connection; a client that needs more opens
/// another, which may be another worker's.
pub const HTTP2_STREAMS_DOWNSTREAM_DEFAULT: u32 = 100;

/// Streams at a time on a connection to an upstream (Envoy: `max_concurrent_streams`, 1024). The upstream says how many it
/// takes, and mostly says less. This bounds what one connection that breaks takes with it where it does not.
pub const HTTP2_STREAMS_UPSTREAM_DEFAULT: u32 = 1024;

/// Connections of one worker to one endpoint that speaks HTTP/2. Another is made when those there are have as many streams as
/// the endpoint allows; one that allows none, or few, must not cost a descriptor for each request.
pub const HTTP2_CONNECTIONS_PER_ENDPOINT_MAX: usize = 64;

/// The most that may be configured of either. Far more than share one connection with profit; with this, what is kept for
/// each stream of a connection has an end.
pub const HTTP2_STREAMS_MAX: u32 = 1 << 16;
const _: () = assert!(HTTP2_STREAMS_DOWNSTREAM_DEFAULT <= HTTP2_STREAMS_UPSTREAM_DEFAULT);
const _: () = assert!(HTTP2_STREAMS_UPSTREAM_DEFAULT <= HTTP2_STREAMS_MAX);

/// Receive window that a connection and each stream begin with, in bytes: the one that RFC 9113 §6.9.2 gives, so nothing has
/// to be announced. What comes at once fits a receive buffer.
pub const HTTP2_WINDOW_BYTES_FIRST: u32 = 65_535;
const _: () = assert!(HTTP2_WINDOW_BYTES_FIRST as usize <= RECV_BUFFER_BYTES);

/// What the window of a stream grows to, in bytes (Envoy: `initial_stream_window_size`, 16 MiB, given at once). A window is
/// what a sender may make us hold when the other side does not read, so it is given only to connections that need it: it
/// grows while the measured bandwidth-delay product fills it. This is 10 Gbit/s at 0.8 ms, or 100 Mbit/s at 80 ms.
pub const HTTP2_STREAM_WINDOW_BYTES_DEFAULT: u32 = 1 << 20;

/// The same for a connection (Envoy: `initial_connection_window_size`, 24 MiB). A few streams at their most; beyond that one
/// connection would hold more than thousands of others.
pub const HTTP2_CONNECTION_WINDOW_BYTES_DEFAULT: u32 = 4 << 20;

/// Largest window, in bytes (RFC 9113 §6.9.1).
pub const HTTP2_WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
const _: () = assert!(HTTP2_WINDOW_BYTES_FIRST <= HTTP2_STREAM_WINDOW_BYTES_DEFAULT);
const _: () = assert!(HTTP2_STREAM_WINDOW_BYTES_DEFAULT <= HTTP2_CONNECTION_WINDOW_BYTES_DEFAULT);
const _: () = assert!(HTTP2_CONNECTION_WINDOW_BYTES_DEFAULT <= HTTP2_WINDOW_BYTES_MAX);

/// A dynamic table of HPACK, in bytes: what RFC 9113 §6.5.2 gives, and Envoy (`hpack_table_size`). Every connection has two.
pub const HTTP2_TABLE_BYTES_DEFAULT: u32 = 4096;

/// The most that may be configured. A larger one holds what was said long ago, and is memory of each connection.
pub const HTTP2_TABLE_BYTES_MAX: u32 = 64 * 1024;
const _: () = assert!(HTTP2_TABLE_BYTES_DEFAULT <= HTTP2_TABLE_BYTES_MAX);

/// Frames that wait to be sent on a connection (Envoy: `max_outbound_frames`). Back-pressure holds DATA far below this; only
/// what is owed to an end that does not read comes near.
pub const HTTP2_OUTBOUND_FRAMES_DEFAULT: u32 = 10_000;

/// Answers to PING, SETTINGS and broken streams that wait to be sent (Envoy: `max_outbound_control_frames`): who asks so
/// often and does not read is not asking.
pub const HTTP2_OUTBOUND_CONTROL_FRAMES_DEFAULT: u32 = 1000;
const _: () = assert!(HTTP2_OUTBOUND_CONTROL_FRAMES_DEFAULT < HTTP2_OUTBOUND_FRAMES_DEFAULT);

/// Frames in a row that carry and end nothing (Envoy: `max_consecutive_inbound_frames_with_empty_payload`). They have no
/// use; one is forgiven.
pub const HTTP2_EMPTY_FRAMES_DEFAULT: u32 = 1;

/// PRIORITY frames for each stream (Envoy: `max_inbound_priority_frames_per_stream`). They are read and forgotten.
pub const HTTP2_PRIORITY_FRAMES_PER_STREAM_DEFAULT: u32 = 100;

/// WINDOW_UPDATE frames for each DATA frame that we sent (Envoy: `max_inbound_window_update_frames_per_data_frame_sent`).
/// One does; ends that estimate bandwidth send a few.
pub const HTTP2_WINDOW_UPDATES_PER_DATA_FRAME_DEFAULT: u32 = 10;

/// Streams that the other end may reset at once, before it must slow down to [`HTTP2_RESETS_PER_SECOND_DEFAULT`] (Envoy:
/// `stream_reset_burst`). A page that is left resets all of its streams, some pages in a row some hundreds.
pub const HTTP2_RESETS_BURST_DEFAULT: u32 = 1000;
const _: () = assert!(HTTP2_STREAMS_DOWNSTREAM_DEFAULT < HTTP2_RESETS_BURST_DEFAULT);

/// And how many each second (Envoy: `stream_reset_rate`).
pub const HTTP2_RESETS_PER_SECOND_DEFAULT: u32 = 33;

/// Frames that move nothing and have no measure of their own, such as PING, SETTINGS and those of unknown types, at once. It is
/// for what connections say to each other at rest.
pub const HTTP2_CHATTER_BURST: u32 = 10_000;

/// And how many each second.
pub const HTTP2_CHATTER_PER_SECOND: u32 = 1000;

/// gRPC methods of one cluster that are counted each by itself. Clients name them, so what is beyond counts together.
pub const GRPC_METHODS_MAX: usize = 64;

/// Longest name of such a method with its service, in bytes.
pub const GRPC_METHOD_BYTES_MAX: usize = 256;

/// Shortest time between two PINGs, and for an answer to one (Envoy's own rule). Timers are not finer.
pub const HTTP2_KEEPALIVE_MIN: Duration = Duration::from_millis(1);

/// Most that is added to the time between two PINGs by chance, in percent (Envoy: `interval_jitter`).
pub const HTTP2_KEEPALIVE_JITTER_PERCENT_DEFAULT: u8 = 15;

// ---- overload --------------------------------------------------------------------------------------------------

/// Descriptors that downstream connections leave alone: listeners, the control plane, name servers, logs, the admin
/// listener and who asks it.
pub const DESCRIPTORS_RESERVED: u64 = 64;

/// The same for each worker: its loop, its mailbox, its listeners, and a spare of each of them.
pub const DESCRIPTORS_PER_WORKER: u64 = 16;

/// Share of the memory of a cgroup that is used, in percent. What is left is for what the kernel accounts late, for the small
/// buffers of exchanges that run when there are no others, and for what is not foreseen.
pub const MEMORY_SHARE_PERCENT: u64 = 80;

/// Buffers that a worker may always use, however much memory others take, so that some requests get through.
pub const BUFFERS_ALWAYS: u64 = 16;

/// Share of the buffers that there may be above which requests are refused, in percent. An exchange holds one from its
/// beginning and takes up to three more for its bodies, some of which are small when all are used: at half, all exchanges
/// that were taken have room to end.
pub const BUFFERS_REFUSE_PERCENT: u64 = 50;

/// Share of the buffers that there may be above which nobody keeps one for long, in percent: sends are given
/// [`SEND_TIME_WHEN_TIGHT`], and who waits for bytes waits without one. Below half of the share above which requests are
/// refused what is held for long leaves as much for what is not.
pub const BUFFERS_TIGHT_PERCENT: u64 = 25;
const _: () = assert!(2 * BUFFERS_TIGHT_PERCENT <= BUFFERS_REFUSE_PERCENT && BUFFERS_REFUSE_PERCENT <= 50);

/// How long a send of a buffer may last then: who takes less than 13 KB a second is in the way of others.
pub const SEND_TIME_WHEN_TIGHT: Duration = Duration::from_secs(5);

/// What comes with a buffer, in bytes: a part of the task of its connection, of its sockets, and what the allocator makes of
/// that.
pub const BYTES_BESIDE_BUFFER: u64 = 16 * 1024;

/// What a connection costs that holds no buffer, in bytes: its task, its socket, and a name in the poll or ring.
pub const CONNECTION_BYTES: u64 = 8 * 1024;

/// Share of the memory that is left which new connections may take before it is looked again what is left, as a divisor.
pub const NEW_CONNECTIONS_SHARE: u64 = 4;

/// Share of the memory that may be in buffers which io_uring receives into and nobody has taken, as a divisor. They are 16 MiB
/// for each worker at most; of much memory that is little.
pub const PROVIDED_SHARE: u64 = 16;

/// What the kernel may hold of a connection each way, in bytes of messages, where its memory counts as ours: this share of the
/// memory, as a divisor, within bounds. Left alone it goes up to megabytes for one connection whose other end does not read.
pub const HELD_SHARE: u64 = 4096;

/// The least of it: half of a buffer, so that a send and the acknowledgement of the one before can overlap.
pub const HELD_BYTES_MIN: u64 = RECV_BUFFER_BYTES as u64 / 2;

/// The most of it: with 1 ms to the other end that is still 64 MB a second for one connection.
pub const HELD_BYTES_MAX: u64 = RECV_BUFFER_BYTES as u64;
const _: () = assert!(HELD_BYTES_MIN <= HELD_BYTES_MAX);

// ---- upstream connections --------------------------------------------------------------------------------------

/// Idle connections kept per worker and endpoint. More than a worker can use at once under steady load only hold
/// descriptors.
pub const POOL_IDLE_PER_ENDPOINT_MAX: usize = 128;

/// Idle connections kept per worker over all endpoints.
pub const POOL_IDLE_PER_WORKER_MAX: usize = 4096;
const _: () = assert!(POOL_IDLE_PER_ENDPOINT_MAX <= POOL_IDLE_PER_WORKER_MAX);

/// Idle connections kept for one downstream connection, where upstream connections belong to one (the PROXY protocol). It
/// has one exchange at a time, so this is how many clusters or endpoints it may go to in turn without a new connect.
pub const POOL_IDLE_PER_DOWNSTREAM_MAX: usize = 8;

/// Idle connections to an endpoint that a worker must have to lend one to another. With less it could lend its only one, ask
/// for one back in the next moment, and so on (HAProxy: `pool-low-conn`, over all threads).
pub const POOL_IDLE_TO_LEND_MIN: usize = 2;
const _: () = assert!(POOL_IDLE_TO_LEND_MIN >= 2 && POOL_IDLE_TO_LEND_MIN <= POOL_IDLE_PER_ENDPOINT_MAX);

/// Time that an exchange waits for another worker to lend a connection, before it makes one of its own. A worker that has
/// time answers within a turn or two, which take some tens of microseconds; one that does not is no help. As every deadline
/// it may be noticed a tick of the timers late, so it is some milliseconds at most.
pub const LOAN_WAIT_MAX: Duration = Duration::from_millis(1);

/// Connections that the control thread accepts at a time for workers that are stuck. It has other things to do, and looks
/// again soon.
pub const ACCEPTS_FOR_THE_STUCK_MAX: usize = 256;

/// Connect attempts for one exchange, the first one included. Each goes to another endpoint.
pub const CONNECT_ATTEMPTS_MAX: usize = 4;

/// Retries after a connect failure when the route names no number. Nothing of the request was sent, so they are
/// safe for every method.
pub const CONNECT_RETRIES_DEFAULT: u8 = 2;
const _: () = assert!((CONNECT_RETRIES_DEFAULT as usize) < CONNECT_ATTEMPTS_MAX);

// ---- configuration ---------------------------------------------------------------------------------------------

/// Workers of one process. Endpoint state has one slot per worker.
pub const WORKERS_MAX: usize = 1024;

/// Routes in one route table, over all virtual hosts. The index counts in 32 bits; this is far below.
pub const ROUTES_PER_TABLE_MAX: usize = 1 << 20;

/// Domains in one route table.
pub const DOMAINS_PER_TABLE_MAX: usize = 1 << 20;
const _: () = assert!(ROUTES_PER_TABLE_MAX < u32::MAX as usize);
const _: () = assert!(DOMAINS_PER_TABLE_MAX < u32::MAX as usize);

/// Endpoints of one cluster.
pub const ENDPOINTS_PER_CLUSTER_MAX: usize = 1 << 20;
const _: () = assert!(ENDPOINTS_PER_CLUSTER_MAX < u32::MAX as usize);

/// Endpoints compared by one least request pick (Envoy: `choice_count`, default 2). More than a handful finds hardly
/// a better one and reads more counters of other workers.
pub const LEAST_REQUEST_CHOICES_MAX: usize = 16;

/// Default of [`LEAST_REQUEST_CHOICES_MAX`].
pub const LEAST_REQUEST_CHOICES_DEFAULT: usize = 2;
const _: () =
    assert!(LEAST_REQUEST_CHOICES_DEFAULT >= 2 && LEAST_REQUEST_CHOICES_DEFAULT <= LEAST_REQUEST_CHOICES_MAX);

/// Share of healthy endpoints below which health is ignored, in percent (Envoy: `healthy_panic_threshold`).
pub const PANIC_THRESHOLD_PERCENT_DEFAULT: u8 = 50;

/// How far a priority's healthy share is stretched before load spills to the next one, in percent (Envoy:
/// `overprovisioning_factor`).
pub const OVERPROVISIONING_PERCENT_DEFAULT: u32 = 140;

/// Longest regular expression, in bytes. It bounds the time and memory of parsing one.
pub const REGEX_PATTERN_BYTES_MAX: usize = 4096;

/// Largest compiled regular expression, in bytes. A counted repetition of a large class explodes; this refuses it
/// before it is built.
pub const REGEX_PROGRAM_BYTES_MAX: usize = 256 * 1024;

/// Memory that one regular expression may use per worker for the automaton it builds while matching, in bytes. When
/// it is full it starts anew; a match stays linear in the input.
pub const REGEX_CACHE_BYTES_MAX: usize = 128 * 1024;
const _: () = assert!(REGEX_PATTERN_BYTES_MAX < REGEX_PROGRAM_BYTES_MAX);

/// Capture groups of a rewrite that can be referred to: `\0` to `\9`.
pub const REGEX_GROUPS_MAX: usize = 10;

/// Conditions of the rules of one filter, at all levels. Each may be tested for every request.
pub const RBAC_CONDITIONS_MAX: usize = 1 << 16;

/// Levels of conditions in each other. Each is a call deeper when they are evaluated; what a program writes has a handful.
pub const RBAC_DEPTH_MAX: usize = 32;

// ---- times -----------------------------------------------------------------------------------------------------

/// Time to connect to an endpoint (Envoy: `connect_timeout`).
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// Time from the end of a request to the end of its response (Envoy: route `timeout`).
pub const ROUTE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);
const _: () = assert!(CONNECT_TIMEOUT_DEFAULT.as_nanos() < ROUTE_TIMEOUT_DEFAULT.as_nanos());

/// Time for a request head to arrive whole, from its first byte. Envoy has none by default and recommends 10 s at the
/// edge; without one, slow senders hold connections for ever.
pub const REQUEST_HEADERS_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Time a downstream connection may be without an exchange (Envoy: `common_http_protocol_options.idle_timeout`).
pub const DOWNSTREAM_IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3600);

/// Time in which a request is still answered on a connection that shall end (Envoy: `drain_timeout`, 5 s). A connection in
/// use never ends in the face of a request; and a proxy that stops does not wait longer for those that are not.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);

/// Time a connection lingers after its last answer while the other end still sends (Envoy: `delayed_close_timeout`, 1 s).
/// What comes is thrown away; no bound in bytes, since a client that sends its whole upload before it reads would lose the
/// answer. Only behind an error of HTTP/2 there is one: the window of the connection.
pub const DELAYED_CLOSE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

/// Time an exchange may pass without a byte in either direction (Envoy: `stream_idle_timeout`).
pub const STREAM_IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);
const _: () = assert!(REQUEST_HEADERS_TIMEOUT_DEFAULT.as_nanos() < STREAM_IDLE_TIMEOUT_DEFAULT.as_nanos());

/// Time an upstream connection may wait in the pool (Envoy: cluster `common_http_protocol_options.idle_timeout`).
pub const UPSTREAM_IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3600);

/// Time a proxied TCP connection may pass without a byte in either direction (Envoy: `tcp_proxy.idle_timeout`).
pub const TCP_IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3600);

/// Time for the listener filters, so for a ClientHello, to finish (Envoy: `listener_filters_timeout`).
pub const LISTENER_FILTERS_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// How long a client that may speak HTTP or TLS may be silent before its server is connected to, which may be the one that
/// speaks first. Clients of the former speak at once; what is connected in vain costs a connect.
pub const SERVER_FIRST_WAIT: Duration = Duration::from_millis(10);

/// The same where other clients of the same address begin with TLS that ends here: a ClientHello that is lost once comes again
/// within this time (RFC 6298 §2.4 as Linux has it: 200 ms), and would go to a server that was taken for one that speaks first.
pub const SERVER_FIRST_WAIT_BESIDE_TLS: Duration = Duration::from_millis(300);

/// Sources of plain connections that are told apart per listener and worker, where they could be secured. Who does not join a
/// mesh at its beginning is a few clients; of more, those that were seen last are known.
pub const PLAINTEXT_SOURCES_MAX: usize = 256;

/// How long it is remembered of a destination that the server spoke first there, so that nobody waits for the client again.
pub const SERVER_FIRST_REMEMBERED: Duration = Duration::from_secs(600);

/// Such destinations per worker. Few servers of a network speak first, each at one address.
pub const SERVER_FIRST_DESTINATIONS_MAX: usize = 256;

/// Time that the first answer of a control plane for something is waited for (Envoy: `initial_fetch_timeout`).
pub const INITIAL_FETCH_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// Time between two look-ups of a DNS name (Envoy: `dns_refresh_rate`).
pub const DNS_REFRESH_RATE_DEFAULT: Duration = Duration::from_secs(5);

/// Time between two look-ups of a host that requests name (Envoy: `DnsCacheConfig.dns_refresh_rate`).
pub const DYNAMIC_HOST_REFRESH_RATE_DEFAULT: Duration = Duration::from_secs(60);

/// How long such a host is kept when no request names it (Envoy: `host_ttl`).
pub const DYNAMIC_HOST_TTL_DEFAULT: Duration = Duration::from_secs(300);

/// Such hosts of one cluster at a time (Envoy: `max_hosts`).
pub const DYNAMIC_HOSTS_DEFAULT: usize = 1024;

/// The most that may be configured: each is looked up again and again.
pub const DYNAMIC_HOSTS_MAX: usize = 16 * 1024;

/// How long a request waits until its host is looked up (Envoy: `dns_query_timeout`).
pub const DNS_QUERY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// Handshakes of TLS that a worker has begun and not ended. Each holds a buffer and some KiB of rustls's.
pub const TLS_HANDSHAKES_PER_WORKER_MAX: usize = 1024;

/// How long a handshake of TLS may take, where nothing else is said. Envoy has no limit; a client that needs longer is one
/// that does not want to be done.
pub const TLS_HANDSHAKE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// How long the alert that says why a handshake failed may take to go.
pub const TLS_ALERT_TIMEOUT: Duration = Duration::from_millis(100);

/// Records in a row without a byte of the application: tickets and new keys are a few (RFC 8446 §4.6).
pub const TLS_IDLE_RECORDS_MAX: u32 = 32;

/// Longest message after a handshake, in bytes: a ticket, which may be 64 KiB and never is.
pub const TLS_HANDSHAKE_MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// Bytes of the application that one send carries at most: two whole records, as much as one buffer holds.
pub const TLS_SEND_BYTES_MAX: usize = 32 * 1024;
