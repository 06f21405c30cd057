//! `cpu-burner`: burns as much of its CPU limit, and holds as much of its memory limit, as it is told.
//!
//! | method and path | does |
//! |---|---|
//! | `GET /change/{cpu}/{mem}` | `cpu` percent of the CPU limit (1–100), `mem` percent of the memory limit (0–100); both clamped |
//! | `GET /top` | what the container uses, over a sample of 0.2 s |
//! | `GET /healthz` | 200 |
//!
//! The limits come from the environment: `CPU_LIMIT` in millicores, `MEMORY_LIMIT` in bytes (the downward API's
//! `resourceFieldRef`). Owns the programme's API; how CPU is burnt and memory held is `load`'s.

mod load;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use crate::server::{self, Answer};
use load::{Limits, Load};

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
    let load = Arc::new(Load::start(limits));
    let served = server::serve(PORT, move |request| {
        let load = load.clone();
        async move { handle(&load, &request).await }
    });
    match served {
        Ok(()) => 0,
        Err(error) => {
            crate::complain(&format!("listening on port {PORT}: {error}"));
            1
        }
    }
}

async fn handle(load: &Load, request: &Request<Incoming>) -> Answer {
    let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    match (request.method(), path.as_slice()) {
        (&Method::GET, ["healthz"]) => (StatusCode::OK, json!({ "status": "ok" })),
        (&Method::GET, ["top"]) => top(load).await,
        (&Method::GET, ["change", cpu, memory]) => change(load, cpu, memory),
        (_, ["healthz" | "top"] | ["change", _, _]) => (
            StatusCode::METHOD_NOT_ALLOWED,
            json!({ "detail": "Method Not Allowed" }),
        ),
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
    load.set(percent as u32, share);
    crate::say(&format!(
        "now {percent} % of the CPU limit, {share} % of the memory limit"
    ));
    (
        StatusCode::OK,
        json!({ "cpu_tasks": percent, "mem_target_percent": share }),
    )
}

async fn top(load: &Load) -> Answer {
    let before = load::cpu_time();
    let start = tokio::time::Instant::now();
    tokio::time::sleep(SAMPLE).await;
    let burnt = load::cpu_time().saturating_sub(before).as_secs_f64() / start.elapsed().as_secs_f64();
    let resident = load::resident_bytes() as f64;
    let Limits { millicores, memory } = load.limits();
    let mb = |bytes: f64| (bytes / (1024.0 * 1024.0) * 10.0).round() / 10.0;
    let percent = |part: f64, whole: f64| (part / whole * 1000.0).round() / 10.0;
    let cpu_percent = percent(burnt * 1000.0, f64::from(millicores));
    let total = memory as f64;
    let body = json!({
        // The container is the system: its limits are what there is. The keys are the original program's.
        "system_cpu_percent": cpu_percent,
        "system_memory": {
            "total_mb": mb(total),
            "used_mb": mb(resident),
            "available_mb": mb((total - resident).max(0.0)),
            "percent_used": percent(resident, total),
        },
        "current_process": {
            "pid": std::process::id(),
            "cpu_percent": (burnt * 1000.0).round() / 10.0,
            "memory_mb": mb(resident),
            "memory_percent": percent(resident, total),
        },
        "cpu_millicores": (burnt * 1000.0).round(),
        "limits": { "cpu_millicores": millicores, "memory_bytes": memory },
    });
    (StatusCode::OK, body)
}
