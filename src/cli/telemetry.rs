//! Export of spans to an OpenTelemetry collector, if the program is built with the feature `otel`
//! and its environment names a collector.
//!
//! Spans wait in a bounded queue for a separate thread, so a collector never delays a call. Spans
//! that the queue or the collector cannot accept are lost. One warning at the end reports their
//! number and the reason.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, RetryPolicy, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter,
    SpanProcessor,
};
use rustls::crypto::ring;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use super::signals::Signals;
use super::{Answer, environment};
use crate::text::escaped;
use crate::trace;

/// Timeout for the remaining spans at the end of the program.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout for the remaining spans after a signal, when the program should end soon.
const EXPORT_TIMEOUT_AFTER_SIGNAL: Duration = Duration::from_secs(1);
/// Length of the queue, unless the environment sets it. The usual 2048 spans are those of 50 ms of
/// short calls.
const QUEUE_SIZE: usize = 32_768;
/// Spans in one request, unless the environment sets their number.
const BATCH_SIZE: usize = 2048;
/// Retries of a request, after 0.1 s and 0.2 s.
const RETRIES: usize = 2;
/// Maximum number of bytes read from a response.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// Runs a command, and exports its spans if the environment enables this.
///
/// * `quiet`: true for no warning.
pub(super) fn traced(
    name: &'static str,
    quiet: bool,
    signals: &Signals,
    command: impl FnOnce() -> Answer,
) -> Answer {
    if !environment::exports_traces() {
        return command();
    }
    let (mut answer, warning) = match Export::start() {
        Ok(export) => {
            let span = trace::command(name);
            if let Some(parent) = parent() {
                // This cannot fail: the span is new, and its subscriber is that of `Export::start`.
                let _ = span.set_parent(parent);
            }
            let answer = span.in_scope(command);
            drop(span);
            let timeout = if signals.received().is_some() {
                EXPORT_TIMEOUT_AFTER_SIGNAL
            } else {
                EXPORT_TIMEOUT
            };
            (answer, export.finish(timeout))
        }
        Err(text) => (command(), Some(format!("spans are not exported: {text}"))),
    };
    if let Some(text) = warning.filter(|_| !quiet) {
        answer
            .stderr
            .push_str(&format!("warning: {}\n", escaped(&text)));
    }
    answer
}

/// Returns the span in which the parent process started this program.
fn parent() -> Option<Context> {
    let variables = environment::trace_context();
    (!variables.is_empty()).then(|| TraceContextPropagator::new().extract(&variables))
}

/// A running export.
struct Export {
    provider: SdkTracerProvider,
    delivery: Arc<Delivery>,
}

/// Counts of ended and exported spans, and the last error.
#[derive(Debug, Default)]
struct Delivery {
    n_ended: AtomicUsize,
    n_exported: AtomicUsize,
    last_error: Mutex<Option<String>>,
}

impl Delivery {
    fn set_error(&self, text: Option<String>) {
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = text;
    }
}

impl Export {
    /// Starts the exporting thread, and installs a subscriber that sends it the program's spans.
    ///
    /// # Errors
    /// A message for the user.
    fn start() -> Result<Self, String> {
        let delivery = Arc::new(Delivery::default());
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_protocol(if environment::otlp_is_json() {
                Protocol::HttpJson
            } else {
                Protocol::HttpBinary
            })
            .with_http_client(Client::new(Arc::clone(&delivery)))
            .with_retry_policy(RetryPolicy::recommended().with_max_retries(RETRIES))
            .build()
            .map_err(|err| err.to_string())?;
        let mut config = BatchConfigBuilder::default();
        if !environment::sets_trace_queue() {
            config = config
                .with_max_queue_size(QUEUE_SIZE)
                .with_max_export_batch_size(BATCH_SIZE);
        }
        let exporter = CountingExporter {
            exporter,
            delivery: Arc::clone(&delivery),
        };
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(config.build())
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_span_processor(CountingProcessor {
                processor,
                delivery: Arc::clone(&delivery),
            })
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_location(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")));
        let is_ours = filter_fn(|metadata| {
            *metadata.level() <= LevelFilter::INFO
                && metadata.target().split("::").next() == Some("mandelbox")
        });
        let subscriber = tracing_subscriber::registry()
            .with(is_ours.with_max_level_hint(LevelFilter::INFO))
            .with(layer);
        tracing::subscriber::set_global_default(subscriber).map_err(|err| err.to_string())?;
        Ok(Self { provider, delivery })
    }

    /// Sends the remaining spans. Returns a warning if any were lost.
    fn finish(self, timeout: Duration) -> Option<String> {
        let started = Instant::now();
        // The counts below show the outcome, so the result is not needed.
        let _ = self.provider.shutdown_with_timeout(timeout);
        let is_over = started.elapsed() >= timeout;
        let n_ended = self.delivery.n_ended.load(Ordering::SeqCst);
        let n_lost = n_ended.saturating_sub(self.delivery.n_exported.load(Ordering::SeqCst));
        let error = self
            .delivery
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        (n_lost > 0).then(|| {
            let why = error.unwrap_or_else(|| match is_over {
                true => format!(
                    "it did not accept all of them within {} s",
                    timeout.as_secs()
                ),
                false => {
                    "they ended faster than it accepted them; OTEL_BSP_MAX_QUEUE_SIZE sets the \
                     length of the queue"
                        .to_owned()
                }
            });
            format!("{n_lost} of {n_ended} spans did not reach the OpenTelemetry collector: {why}")
        })
    }
}

/// Returns the attributes of the program. Those in the environment take precedence.
fn resource() -> Resource {
    let of_environment = Resource::builder().build();
    let name = of_environment.get(&Key::from_static_str("service.name"));
    let named = name.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_attribute(version);
    if named {
        resource.build()
    } else {
        resource.with_service_name(env!("CARGO_PKG_NAME")).build()
    }
}

/// Span processor that counts the spans to export.
#[derive(Debug)]
struct CountingProcessor {
    processor: BatchSpanProcessor,
    delivery: Arc<Delivery>,
}

impl SpanProcessor for CountingProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.processor.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        self.delivery.n_ended.fetch_add(1, Ordering::SeqCst);
        self.processor.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.processor.set_resource(resource);
    }
}

/// Span exporter that counts the exported spans.
#[derive(Debug)]
struct CountingExporter {
    exporter: opentelemetry_otlp::SpanExporter,
    delivery: Arc<Delivery>,
}

impl SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let n_spans = batch.len();
        self.exporter.export(batch).await?;
        self.delivery
            .n_exported
            .fetch_add(n_spans, Ordering::SeqCst);
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// HTTP client of the exporting thread. It blocks, which only delays that thread.
#[derive(Debug)]
struct Client {
    agent: Agent,
    delivery: Arc<Delivery>,
}

impl Client {
    fn new(delivery: Arc<Delivery>) -> Self {
        // Use the certificates of the machine, for collectors inside an institution.
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(environment::otlp_timeout()))
            .tls_config(tls.build())
            .user_agent(concat!("mandelbox/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.into(),
            delivery,
        }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let response = self.agent.run(Request::from_parts(parts, body.as_ref()))?;
        let (parts, mut body) = response.into_parts();
        let body = body.with_config().limit(MAX_ANSWER_BYTES).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Show host and port only, since the rest of an address can contain a password.
        let (host, port) = (
            request.uri().host().unwrap_or_default().to_owned(),
            request.uri().port(),
        );
        let address = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        let result = self.send(request);
        self.delivery.set_error(match &result {
            Err(err) => Some(format!("{address}: {err}")),
            Ok(response) if !response.status().is_success() => {
                Some(format!("{address} returned {}", response.status()))
            }
            Ok(_) => None,
        });
        Ok(result?)
    }
}
