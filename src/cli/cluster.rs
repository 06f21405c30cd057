//! `cluster`: the embedded cluster by itself.

use std::path::PathBuf;

use apimachinery::pace::Pace;
use serde_json::json;

use super::app::App;
use super::error::CliError;
use super::up::parse_speed;
use crate::engine::folder;
use crate::exit::Code;
use crate::providers::embedded::{Embedded, State};
use crate::providers::{Presence, Provider as _};
use crate::ui::Format;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Start the cluster, or find it running
    Start {
        /// Lab time runs this many times faster
        #[arg(long, value_name = "N", value_parser = parse_speed)]
        speed: Option<Pace>,
    },
    /// End its containers and keep its objects
    Stop,
    /// Take it away with everything in it
    Delete {
        /// Even while labs are up
        #[arg(long)]
        force: bool,
        /// The history and the image cache too
        #[arg(long)]
        purge: bool,
    },
    /// Show what there is of it
    Status,
    /// Print a kubeconfig, or merge a context into yours
    Kubeconfig {
        /// The name of the context
        #[arg(long, default_value = "k8slab", value_name = "NAME")]
        context: String,
        /// The context's namespace
        #[arg(long, default_value = "default", value_name = "NAME")]
        namespace: String,
        /// Merge it into your kubeconfig
        #[arg(long)]
        merge: bool,
    },
    /// Write all its objects to a file
    Export {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Replace all its objects by those of an export
    Import {
        /// What `export` wrote
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Be the cluster's daemon (started by the others)
    #[command(hide = true)]
    Run,
}

pub(super) async fn run(verb: &Verb, app: &App) -> Result<Code, CliError> {
    let cluster = |speed| Embedded::new(&app.paths, speed);
    match verb {
        Verb::Start { speed } => start(app, &cluster(*speed)).await,
        Verb::Stop => {
            let stopped = cluster(None).stop().await?;
            app.out.say(if stopped {
                "the cluster is stopped, its objects are kept"
            } else {
                "the cluster was not running"
            });
            Ok(Code::Fine)
        }
        Verb::Delete { force, purge } => delete(app, &cluster(None), *force, *purge).await,
        Verb::Status => status(app, &cluster(None)),
        Verb::Kubeconfig {
            context,
            namespace,
            merge,
        } => {
            let Presence::Running(running) = cluster(None).find().await? else {
                return Err(CliError::new(Code::Prerequisite, "the cluster does not run").hint("k8slab cluster start"));
            };
            if *merge {
                app.kubeconfig.put(context, &running.kubeconfig, namespace)?;
                app.out.say(format!(
                    "context `{context}` is in `{}`",
                    app.kubeconfig.path().display()
                ));
            } else {
                let text = crate::kubeconfig::alone(context, &running.kubeconfig, namespace)?;
                app.out.text(&text);
            }
            Ok(Code::Fine)
        }
        Verb::Export { file } => {
            let objects = cluster(None).export(file).await?;
            app.out.say(format!("{objects} objects are in `{}`", file.display()));
            Ok(Code::Fine)
        }
        Verb::Import { file } => {
            let imported = cluster(None).import(file).await?;
            app.out.say(format!("{} objects are in the cluster", imported.objects));
            if let Some(kept) = imported.kept {
                app.out
                    .say(format!("note: what was there before is kept in `{}`", kept.display()));
            }
            Ok(Code::Fine)
        }
        // `main` gives this role away before the command line is read; this is somebody who typed it with other words.
        Verb::Run => Err(CliError::usage("`cluster run` is started by `cluster start` and `up`")),
    }
}

async fn start(app: &App, cluster: &Embedded) -> Result<Code, CliError> {
    let running = cluster.start(&|text| app.out.say(format!("note: {text}"))).await?;
    if app.out.format == Format::Json {
        app.out
            .json(&json!({ "summary": running.summary, "started": running.started, "warnings": running.warnings }));
    } else {
        app.out.say(running.summary);
        running
            .warnings
            .iter()
            .for_each(|warning| app.out.say(format!("note: {warning}")));
        app.out
            .say("  try   k8slab cluster kubeconfig --merge   then: kubectl --context k8slab get nodes");
    }
    Ok(Code::Fine)
}

async fn delete(app: &App, cluster: &Embedded, force: bool, purge: bool) -> Result<Code, CliError> {
    let labs = folder::known(&app.paths)?;
    let up: Vec<&str> = labs.iter().map(|lab| lab.lab.scenario.as_str()).collect();
    if !up.is_empty() && !force {
        let message = format!("labs are up on it: {}", up.join(", "));
        return Err(CliError::new(Code::Failed, message).hint("`k8slab down --all` first, or `--force`"));
    }
    let deleted = cluster.delete().await?;
    for lab in &labs {
        app.kubeconfig.remove(&lab.lab.context)?;
        let retired = lab.folder.retire(&app.paths, app.clock.now());
        retired.map_err(|error| CliError::failed("moving a journal to the history", &error))?;
    }
    app.kubeconfig.remove("k8slab")?;
    if purge {
        for folder in [app.paths.history(), app.paths.images()] {
            remove(app, &folder)?;
        }
        let _ = app
            .paths
            .owner
            .act(|| std::fs::remove_file(app.paths.home.join("consents")));
        // Only if nothing of somebody else's is in it.
        let _ = app.paths.owner.act(|| std::fs::remove_dir(&app.paths.home));
    }
    app.out.say(if deleted {
        "the cluster is deleted"
    } else {
        "there was no cluster"
    });
    Ok(Code::Fine)
}

fn remove(app: &App, folder: &std::path::Path) -> Result<(), CliError> {
    match app.paths.owner.act(|| std::fs::remove_dir_all(folder)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(CliError::failed(&format!("removing `{}`", folder.display()), &error))
        }
        _ => Ok(()),
    }
}

fn status(app: &App, cluster: &Embedded) -> Result<Code, CliError> {
    let state = cluster.state()?;
    if app.out.format == Format::Json {
        app.out.json(&state);
        return Ok(Code::Fine);
    }
    match state {
        State::Absent => app.out.line("there is no cluster"),
        State::Stopped => app.out.line("stopped; its objects are kept"),
        State::Crashed { pid } => {
            app.out.line(format!(
                "crashed: the daemon (pid {pid}) is gone; its containers may go on"
            ));
            app.out
                .say("  hint: `k8slab cluster start` takes them over, `k8slab cluster stop` ends them");
        }
        State::Running {
            api,
            pid,
            speed,
            version,
            limits_not_enforced,
        } => {
            let speed = if speed == 1 {
                String::new()
            } else {
                format!(", lab time {speed} times faster")
            };
            app.out
                .line(format!("running: API at {api}, pid {pid}, k8slab {version}{speed}"));
            if let Some(why) = limits_not_enforced {
                app.out
                    .line(format!("note: CPU and memory limits are not enforced: {why}"));
            }
        }
    }
    Ok(Code::Fine)
}
