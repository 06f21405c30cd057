//! `cpu-burner`: burns as much of its CPU limit, and holds as much of its memory limit, as it is told.
//!
//! | method and path | does |
//! |---|---|
//! | `GET /change/{cpu}/{mem}` | `cpu` percent of the CPU limit (1–100), `mem` percent of the memory limit (0–100); both clamped, and memory is never more than 90 %: `memory_bytes` of the answer is what is held |
//! | `GET /top` | what the container uses, over a sample of 0.2 s |
//! | `GET /healthz` | 200 |
//!
//! The limits come from the environment: `CPU_LIMIT` in millicores, `MEMORY_LIMIT` in bytes (the downward API's
//! `resourceFieldRef`). That a GET changes something is the original's; it stays, for its page's commands. Owns the
//! program's API; how CPU is burnt and memory held is `load`'s, what the container uses `usage`'s.

mod budget;
mod clock;
mod load;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::server::{self, Answer};
use load::{Limits, Load};
use usage::Source;

const PORT: u16 = 8000;
const SAMPLE: Duration = Duration::from_millis(200);

/// Runs until SIGTERM. Exit code 0, or 1 when the port cannot be had, or 2 for limits that are not numbers.
pub(crate) fn main(_args: &[String]) -> i32 {
    let limits = match Limits::from_environment() {
        Ok(limits) => limits,
        Err(problem) => {
            crate::complain(&problem);
            return 2;
        }
    };
    crate::say(&format!(
        "cpu-burner: limits are {} millicores and {} bytes",
        limits.millicores, limits.memory
    ));
    let state = Arc::new((Load::start(limits), Source::find()));
    let served = server::serve(PORT, move |request| {
        let state = state.clone();
        async move { handle(&state.0, &state.1, &request).await }
    });
    match served {
        Ok(()) => 0,
        Err(error) => {
            crate::complain(&format!("listening on port {PORT}: {error}"));
            1
        }
    }
}

async fn handle<B>(load: &Load, source: &Source, request: &Request<B>) -> Answer {
    let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    match (request.method(), path.as_slice()) {
        (&Method::GET, ["healthz"]) => server::ok(),
        (&Method::GET, ["top"]) => top(load, source).await,
        (&Method::GET, ["change", cpu, memory]) => change(load, cpu, memory),
        (_, ["healthz" | "top"] | ["change", _, _]) => server::method_not_allowed(),
        _ => server::not_found(),
    }
}

fn change(load: &Load, cpu: &str, memory: &str) -> Answer {
    let Ok(percent) = cpu.parse::<i64>() else {
        let message = "Input should be a valid integer, unable to parse string as an integer";
        return server::unprocessable("int_parsing", "cpu", message, cpu);
    };
    let Some(share) = memory.parse::<f64>().ok().filter(|share| share.is_finite()) else {
        let message = "Input should be a valid number, unable to parse string as a number";
        return server::unprocessable("float_parsing", "mem", message, memory);
    };
    let (percent, share) = (percent.clamp(1, 100), share.clamp(0.0, 100.0));
    let bytes = load.set(percent as u32, share);
    crate::say(&format!(
        "now {percent} % of the CPU limit, {share} % of the memory limit"
    ));
    let body = json!({
        "cpu_tasks": percent,
        "mem_target_percent": share,
        "cpu_millicores": i64::from(load.limits().millicores) * percent / 100,
        "memory_bytes": bytes,
    });
    (StatusCode::OK, body)
}

async fn top(load: &Load, source: &Source) -> Answer {
    let (before, start) = (source.read(), tokio::time::Instant::now());
    tokio::time::sleep(SAMPLE).await;
    let after = source.read();
    let cores = after.cpu.saturating_sub(before.cpu).as_secs_f64() / start.elapsed().as_secs_f64();
    (
        StatusCode::OK,
        report(load.limits(), cores, after.memory, usage::resident_bytes()),
    )
}

/// The answer of `/top`. The keys are the original program's, where `system` was the machine and `current_process` one
/// of a hundred; here the limits are all there is, and this process does the work.
fn report(limits: Limits, cores: f64, used: u64, resident: u64) -> Value {
    let tenths = |value: f64| (value * 10.0).round() / 10.0;
    let mb = |bytes: u64| tenths(bytes as f64 / f64::from(1 << 20));
    let of_limit = |bytes: u64| tenths(bytes as f64 / limits.memory as f64 * 100.0);
    json!({
        "system_cpu_percent": tenths(cores * 1e5 / f64::from(limits.millicores)),
        "system_memory": {
            "total_mb": mb(limits.memory),
            "used_mb": mb(used),
            "available_mb": mb(limits.memory.saturating_sub(used)),
            "percent_used": of_limit(used),
        },
        "current_process": {
            "pid": std::process::id(),
            "cpu_percent": tenths(cores * 100.0),
            "memory_mb": mb(resident),
            "memory_percent": of_limit(resident),
        },
        "cpu_millicores": (cores * 1000.0).round(),
        "limits": { "cpu_millicores": limits.millicores, "memory_bytes": limits.memory },
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;

    use super::*;

    async fn get(path: &str) -> Answer {
        let load = Load::start(Limits {
            millicores: 100,
            memory: 100 << 20,
        });
        let request = Request::get(path).body(Empty::<bytes::Bytes>::new()).unwrap();
        handle(&load, &Source::Process, &request).await
    }

    #[tokio::test]
    async fn a_change_is_clamped_and_says_what_it_comes_to() {
        let (status, body) = get("/change/42/33").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            body,
            json!({"cpu_tasks": 42, "mem_target_percent": 33.0, "cpu_millicores": 42, "memory_bytes": 33 << 20})
        );
        let (_, body) = get("/change/1000/-3").await;
        assert_eq!(
            (&body["cpu_tasks"], &body["mem_target_percent"]),
            (&json!(100), &json!(0.0))
        );
    }

    #[tokio::test]
    async fn values_of_the_wrong_type_are_422_with_a_detail() {
        let (status, body) = get("/change/many/1").await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(
            body,
            json!({"detail": [{
                "type": "int_parsing", "loc": ["path", "cpu"], "input": "many",
                "msg": "Input should be a valid integer, unable to parse string as an integer",
            }]})
        );
        assert_eq!(get("/change/1/NaN").await.0, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(get("/change/1.5/1").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[tokio::test]
    async fn unknown_paths_are_404() {
        for path in ["/", "/change/1", "/change/1/2/3", "/topp"] {
            assert_eq!(
                get(path).await,
                (StatusCode::NOT_FOUND, json!({"detail": "Not Found"})),
                "{path}"
            );
        }
        assert_eq!(get("/healthz").await.0, StatusCode::OK);
    }

    #[test]
    fn top_is_told_in_parts_of_the_limits() {
        let limits = Limits {
            millicores: 200,
            memory: 128 << 20,
        };
        let body = report(limits, 0.05, 32 << 20, 16 << 20);
        assert_eq!(body["system_cpu_percent"], 25.0);
        assert_eq!(
            body["system_memory"],
            json!({"total_mb": 128.0, "used_mb": 32.0, "available_mb": 96.0, "percent_used": 25.0})
        );
        assert_eq!(body["current_process"]["cpu_percent"], 5.0);
        assert_eq!(body["current_process"]["memory_percent"], 12.5);
        assert_eq!(
            body["limits"],
            json!({"cpu_millicores": 200, "memory_bytes": 134_217_728})
        );
    }
}
