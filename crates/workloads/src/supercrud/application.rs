//! The application of the supercrud lab: items over HTTP, kept in a database, from as many replicas as one likes.
//!
//! Owns the API: paths, what a body must be, which failure gets which status. At SIGTERM it says that it is not ready,
//! goes on answering until that has gone round, and only then closes: no request is lost while the lab scales.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::database::{Database, Draft};
use crate::server::{self, Answer};
use crate::web::pod_name;
use crate::{condition, operator};

const PORT: u16 = 8000;
/// Larger than any item.
const BODY_LIMIT: usize = 64 * 1024;
/// From SIGTERM to the last new connection: endpoints and proxies have heard of it by then.
const FAREWELL: Duration = Duration::from_secs(3);

/// What all requests share.
struct State {
    database: Database,
    pod: String,
    /// The tables are there.
    migrated: AtomicBool,
    /// SIGTERM came.
    leaving: AtomicBool,
    /// Answers by method and status.
    answered: Mutex<BTreeMap<(String, u16), u64>>,
}

/// Runs until SIGTERM. Exit code 0; 1 when the port cannot be had; 2 when the database's address is no address.
pub(crate) fn main(_args: &[String]) -> i32 {
    #[expect(
        clippy::disallowed_methods,
        reason = "a container's configuration is its environment"
    )]
    let read = |name: &str| std::env::var(name).ok();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            crate::complain(&format!("supercrud: {error}"));
            return 1;
        }
    };
    let outcome = runtime.block_on(async {
        let database = Database::from_environment(read).map_err(|error| (2, error))?;
        serve(database).await.map_err(|error| (1, error.to_string()))
    });
    match outcome {
        Ok(()) => 0,
        Err((code, error)) => {
            crate::complain(&format!("supercrud: {error}"));
            code
        }
    }
}

async fn serve(database: Database) -> std::io::Result<()> {
    let (asked, stop) = (CancellationToken::new(), CancellationToken::new());
    operator::stop_on_signals(&asked)?;
    let state = Arc::new(State::new(database, pod_name()));
    let listener = server::bind(PORT).await?;
    let migrating = tokio::spawn(migrate(state.clone()));
    tokio::spawn({
        let (state, stop) = (state.clone(), stop.clone());
        async move {
            asked.cancelled().await;
            crate::say("SIGTERM: not ready any more, still answering");
            state.leaving.store(true, Ordering::Relaxed);
            tokio::time::sleep(FAREWELL).await;
            stop.cancel();
        }
    });
    let shared = state.clone();
    server::serve_until(listener, move |request| answer(shared.clone(), request), stop).await;
    migrating.abort();
    state.database.close().await;
    crate::say("every request is answered");
    Ok(())
}

/// Waits for the database and brings its tables up to date; until then the pod is not ready, and lives.
async fn migrate(state: Arc<State>) {
    let mut wait = Duration::from_millis(250);
    while let Err(error) = state.database.migrate().await {
        crate::complain(&format!("preparing the database: {error}"));
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
    crate::say("the database is ready");
    state.migrated.store(true, Ordering::Relaxed);
}

impl State {
    fn new(database: Database, pod: String) -> Self {
        Self {
            database,
            pod,
            migrated: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            answered: Mutex::default(),
        }
    }

    fn metrics(&self) -> String {
        let mut text = String::from(
            "# HELP supercrud_requests_total Requests answered.\n# TYPE supercrud_requests_total counter\n",
        );
        for ((method, status), count) in self.answered.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            text += &format!("supercrud_requests_total{{method=\"{method}\",status=\"{status}\"}} {count}\n");
        }
        text
    }
}

/// One request, from its first byte to its answer.
async fn answer<B>(state: Arc<State>, request: Request<B>) -> Response<Full<Bytes>>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let method = request.method().clone();
    let mut response = if method == Method::GET && request.uri().path() == "/metrics" {
        let mut response = Response::new(Full::from(state.metrics()));
        let text = HeaderValue::from_static("text/plain; version=0.0.4");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        response
    } else {
        let answer = handle(&state, request).await.unwrap_or_else(|failure| failure);
        server::respond(answer)
    };
    let known = [Method::GET, Method::POST, Method::PUT, Method::DELETE].contains(&method);
    let method = if known { method.to_string() } else { "other".to_owned() };
    let key = (method, response.status().as_u16());
    *state
        .answered
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(key)
        .or_default() += 1;
    if state.leaving.load(Ordering::Relaxed) {
        // Whoever keeps its connection shall make the next one to somebody who stays.
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer to a request; a failure is one, too.
async fn handle<B>(state: &State, request: Request<B>) -> Result<Answer, Answer>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let path = request.uri().path().to_owned();
    let path: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (database, pod) = (&state.database, state.pod.as_str());
    match (request.method(), path.as_slice()) {
        (&Method::GET, [""]) => Ok(visit(state).await),
        (&Method::GET, ["healthz"]) => Ok(server::ok()),
        (&Method::GET, ["readyz"]) => ready(state).await,
        (&Method::GET, ["items"]) => Ok((StatusCode::OK, json!(database.items().await.map_err(away)?))),
        (&Method::POST, ["items"]) => {
            let draft = draft(request).await?;
            let made = database.create(&draft, pod).await.map_err(away)?;
            Ok((StatusCode::CREATED, json!(made)))
        }
        (&Method::GET, ["items", id]) => found(database.item(number(id)?).await.map_err(away)?),
        (&Method::PUT, ["items", id]) => {
            let id = number(id)?;
            let draft = draft(request).await?;
            found(database.update(id, &draft).await.map_err(away)?)
        }
        (&Method::DELETE, ["items", id]) => match database.delete(number(id)?).await.map_err(away)? {
            true => Ok((StatusCode::OK, json!({ "status": "deleted" }))),
            false => found(None),
        },
        (_, ["" | "healthz" | "readyz" | "metrics" | "items"] | ["items", _]) => Ok(server::method_not_allowed()),
        _ => Ok(server::not_found()),
    }
}

/// `GET /` leaves a line in the database, as the original did, and says which pod wrote it.
async fn visit(state: &State) -> Answer {
    let line = format!("visited at {}", condition::written(operator::now()));
    match state.database.log(&state.pod, &line).await {
        Ok(()) => (StatusCode::OK, json!({ "pod": state.pod, "message": "Insert OK" })),
        Err(error) => {
            let (status, mut body) = away(error);
            body["pod"] = state.pod.as_str().into();
            body["error"] = body["detail"].clone();
            (status, body)
        }
    }
}

async fn ready(state: &State) -> Result<Answer, Answer> {
    let not_yet = |why: &str| (StatusCode::SERVICE_UNAVAILABLE, json!({ "detail": why }));
    if state.leaving.load(Ordering::Relaxed) {
        return Err(not_yet("the pod is ending"));
    }
    if !state.migrated.load(Ordering::Relaxed) {
        return Err(not_yet("the database is not prepared yet"));
    }
    state.database.ping().await.map_err(away)?;
    Ok(server::ok())
}

fn found(item: Option<super::database::Item>) -> Result<Answer, Answer> {
    let missing = || (StatusCode::NOT_FOUND, json!({ "detail": "Item not found" }));
    item.map(|item| (StatusCode::OK, json!(item))).ok_or_else(missing)
}

/// The database's trouble: what it says goes to the log, not to whoever asks.
fn away(error: sqlx::Error) -> Answer {
    crate::complain(&format!("asking the database: {error}"));
    let detail = "the database does not answer; try again";
    (StatusCode::SERVICE_UNAVAILABLE, json!({ "detail": detail }))
}

fn number(text: &str) -> Result<i64, Answer> {
    let message = "Input should be a valid integer, unable to parse string as an integer";
    let id = text.parse();
    id.map_err(|_| server::unprocessable("int_parsing", "item_id", message, text))
}

/// The body of a POST or PUT, or what is wrong with it: 413, or 422 with the field as FastAPI says it.
async fn draft<B>(request: Request<B>) -> Result<Draft, Answer>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let wrong = |kind: &str, field: &[&str], message: &str| {
        let place: Vec<&str> = [&["body"], field].concat();
        let problem = json!({ "type": kind, "loc": place, "msg": message });
        (StatusCode::UNPROCESSABLE_ENTITY, json!({ "detail": [problem] }))
    };
    let body = Limited::new(request.into_body(), BODY_LIMIT)
        .collect()
        .await
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                let detail = format!("a body has at most {BODY_LIMIT} bytes");
                (StatusCode::PAYLOAD_TOO_LARGE, json!({ "detail": detail }))
            } else {
                (StatusCode::BAD_REQUEST, json!({ "detail": "the body was cut off" }))
            }
        })?;
    let body: Value = serde_json::from_slice(&body.to_bytes())
        .map_err(|error| wrong("json_invalid", &[], &format!("JSON decode error: {error}")))?;
    let field = |name: &str, most: usize| match body.get(name) {
        None | Some(Value::Null) => Err(wrong("missing", &[name], "Field required")),
        Some(Value::String(text)) if text.contains('\0') => Err(wrong(
            "value_error",
            &[name],
            "String should not contain the character NUL",
        )),
        Some(Value::String(text)) if text.chars().count() > most => {
            let message = format!("String should have at most {most} characters");
            Err(wrong("string_too_long", &[name], &message))
        }
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(wrong("string_type", &[name], "Input should be a valid string")),
    };
    if !body.is_object() {
        return Err(wrong(
            "model_attributes_type",
            &[],
            "Input should be a valid dictionary",
        ));
    }
    Ok(Draft {
        name: field("name", 200)?,
        description: field("description", 10_000)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The application on a file of its own.
    struct Lab {
        state: Arc<State>,
        _folder: tempfile::TempDir,
    }

    impl Lab {
        async fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let lab = Self {
                state: Self::on(folder.path()),
                _folder: folder,
            };
            migrate(lab.state.clone()).await;
            lab
        }

        fn on(folder: &std::path::Path) -> Arc<State> {
            let url = format!("sqlite://{}/items.db?mode=rwc", folder.display());
            Arc::new(State::new(Database::open(&url).unwrap(), "pod-1".into()))
        }

        async fn ask(&self, method: &str, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .body(Full::new(body.into()))
                .unwrap();
            let response = answer(self.state.clone(), request).await;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
        }
    }

    #[tokio::test]
    async fn items_are_made_read_changed_and_deleted() {
        let lab = Lab::start().await;
        assert_eq!(lab.ask("GET", "/items", "").await, (200, json!([])));
        let draft = json!({"name": "AlNao", "description": "Una persona magnifica.", "id": 7}).to_string();
        let made = json!({"id": 1, "name": "AlNao", "description": "Una persona magnifica."});
        assert_eq!(lab.ask("POST", "/items", draft).await, (201, made.clone()));
        assert_eq!(lab.ask("GET", "/items", "").await, (200, json!([made])));
        let changed = json!({"name": "AlNao", "description": "x"}).to_string();
        assert_eq!(lab.ask("PUT", "/items/1", changed).await.1["description"], "x");
        assert_eq!(
            lab.ask("DELETE", "/items/1", "").await,
            (200, json!({"status": "deleted"}))
        );
        for method in ["GET", "DELETE"] {
            let missing = (404, json!({"detail": "Item not found"}));
            assert_eq!(lab.ask(method, "/items/1", "").await, missing);
        }
    }

    #[tokio::test]
    async fn a_visit_names_the_pod_and_leaves_a_line() {
        let lab = Lab::start().await;
        let answer = json!({"pod": "pod-1", "message": "Insert OK"});
        assert_eq!(lab.ask("GET", "/", "").await, (200, answer));
        assert_eq!(lab.ask("GET", "/readyz", "").await.0, 200);
        assert_eq!(lab.ask("POST", "/", "").await.0, 405);
        assert_eq!(lab.ask("GET", "/nowhere", "").await.0, 404);
        assert!(
            lab.state
                .metrics()
                .contains("supercrud_requests_total{method=\"GET\",status=\"200\"} 2")
        );
    }

    #[tokio::test]
    async fn rubbish_is_refused_with_its_field() {
        let lab = Lab::start().await;
        for (body, status, kind, place) in [
            ("{", 422, "json_invalid", json!(["body"])),
            ("[]", 422, "model_attributes_type", json!(["body"])),
            ("{\"name\": \"a\"}", 422, "missing", json!(["body", "description"])),
            (
                "{\"name\": 1, \"description\": \"\"}",
                422,
                "string_type",
                json!(["body", "name"]),
            ),
            (
                "{\"name\": \"a\\u0000\", \"description\": \"\"}",
                422,
                "value_error",
                json!(["body", "name"]),
            ),
        ] {
            let (got, answer) = lab.ask("POST", "/items", body).await;
            let problem = &answer["detail"][0];
            assert_eq!(
                (got, &problem["type"], &problem["loc"]),
                (status, &json!(kind), &place),
                "{body}"
            );
        }
        assert_eq!(lab.ask("POST", "/items", vec![b' '; 1 << 20]).await.0, 413);
        assert_eq!(lab.ask("GET", "/items/one", "").await.0, 422);
        let long = json!({"name": "n".repeat(201), "description": ""}).to_string();
        assert_eq!(lab.ask("POST", "/items", long).await.0, 422);
    }

    #[tokio::test]
    async fn sql_in_a_value_is_a_value() {
        let lab = Lab::start().await;
        let name = "'); DROP TABLE items; --";
        let draft = json!({"name": name, "description": "$1 ? :x"}).to_string();
        assert_eq!(lab.ask("POST", "/items", draft).await.1["name"], name);
        assert_eq!(lab.ask("GET", "/items", "").await.1[0]["description"], "$1 ? :x");
    }

    #[tokio::test]
    async fn replicas_that_start_and_write_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let replicas: Vec<_> = (0..4).map(|_| Lab::on(folder.path())).collect();
        let writing = replicas.iter().map(|state| async move {
            migrate(state.clone()).await;
            for n in 0..10 {
                let draft = Draft {
                    name: n.to_string(),
                    description: String::new(),
                };
                state.database.create(&draft, "pod").await.unwrap();
            }
        });
        futures::future::join_all(writing).await;
        assert_eq!(replicas[0].database.items().await.unwrap().len(), 40);
    }

    // Paused: the pool's patience with a refused connection takes no time.
    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_away_is_503_and_nobody_is_told_its_address() {
        let database = Database::open("postgres://admin:secret@127.0.0.1:1/mydb").unwrap();
        let lab = Lab {
            state: Arc::new(State::new(database, "pod-1".into())),
            _folder: tempfile::tempdir().unwrap(),
        };
        let (status, body) = lab.ask("GET", "/items", "").await;
        assert_eq!(
            (status, &body["detail"]),
            (503, &json!("the database does not answer; try again"))
        );
        let (status, body) = lab.ask("GET", "/", "").await;
        assert_eq!((status, &body["pod"]), (503, &json!("pod-1")));
        assert_eq!(lab.ask("GET", "/readyz", "").await.0, 503);
        assert_eq!(lab.ask("GET", "/healthz", "").await.0, 200);
    }
}
