//! The command line: a verb a file. Wires everything else, so it may know it all; errors become text and exit codes here.

mod app;
mod cluster;
mod completions;
mod down;
mod error;
mod explain;
mod history;
mod image;
mod init;
mod ip;
mod kubectl;
mod labs;
mod list;
mod load;
mod logs;
mod man;
mod open;
mod plan;
mod signals;
mod status;
mod test;
mod up;
mod validate;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::exit::Code;
use crate::scenario::duration;
use crate::ui::{Format, Out};
use app::App;
use error::CliError;

/// Kubernetes scaling labs in one command, on any cluster or on none.
#[derive(Debug, Parser)]
#[command(name = "k8slab", version, disable_help_subcommand = true, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb understands.
#[derive(Clone, Debug, clap::Args)]
struct Global {
    /// How to show what happens
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Give up after this long (`90s`, `5m`)
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Show errors and what was asked for, nothing else
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Tell what is done underneath, on standard error
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// A folder with scenarios of your own, a folder each with a `scenario.yaml`
    #[arg(long, global = true, value_name = "DIR")]
    scenarios: Option<PathBuf>,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| "expected a duration such as `90s` or `5m`".to_owned())
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the scenarios there are
    List(list::Args),
    /// Show what `up` (or `down`) would do and why; change nothing
    Plan(plan::Args),
    /// Bring a lab up: cluster, images, objects, until it works
    Up(up::Args),
    /// Show a lab: objects, scaling, its next move, and what is broken
    Status(status::Args),
    /// Do one of the lab's actions to its pods
    Load(load::Args),
    /// Follow replicas, metrics and events
    Watch(watch::Args),
    /// Forward the lab's endpoints to local ports
    Open(open::Args),
    /// Show the logs of all pods of a lab
    Logs(logs::Args),
    /// Take a lab away, wait until it is gone, and look for what it left
    Down(down::Args),
    /// Bring labs up, do their checks, take them away; for CI
    Test(test::Args),
    /// Show the commands that do the same by hand, as a bash script
    Explain(explain::Args),
    /// Show past runs, and where their time went
    History(history::Args),
    /// Write a scenario of your own to start from; it runs as it is
    Init(init::Args),
    /// Check scenario files without a cluster
    Validate(validate::Args),
    /// Look after the embedded cluster by itself
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Print the address on which NodePorts answer
    Ip(ip::Args),
    /// Run kubectl against a lab
    Kubectl(kubectl::Args),
    /// Look at the image store of the embedded cluster, and put images into it
    #[command(subcommand)]
    Image(image::Verb),
    /// Print completions for a shell
    Completions(completions::Args),
    /// Print the manual page
    #[command(hide = true)]
    Man,
}

/// Runs the command line in `args`, the program's name first.
pub fn run(args: Vec<OsString>) -> Code {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers; everything else is a wrong command line.
            let code = if error.use_stderr() { Code::Usage } else { Code::Fine };
            let _ = error.print();
            return code;
        }
    };
    let out = Out::new(cli.global.output, cli.global.quiet);
    log(cli.global.verbose);
    match dispatch(cli, &out) {
        Ok(code) => code,
        Err(error) => {
            out.error(error.report());
            error.code
        }
    }
}

fn dispatch(cli: Cli, out: &Out) -> Result<Code, CliError> {
    let app = |global: &Global| App::new(global.clone(), out.clone());
    let global = &cli.global;
    // Verbs that need no runtime, and some of them no home.
    let verb = match cli.verb {
        Verb::Completions(args) => return Ok(completions::run(&args, out, &mut Cli::command())),
        Verb::Man => return man::run(out, Cli::command()),
        Verb::Validate(args) => return validate::run(&args, out),
        Verb::List(args) => return list::run(&args, &app(global)?),
        Verb::History(args) => return history::run(&args, &app(global)?),
        Verb::Init(args) => return init::run(&args, &app(global)?),
        Verb::Kubectl(args) => return kubectl::run(&args, &app(global)?),
        Verb::Image(image) => return image::run(&image, &app(global)?),
        verb => verb,
    };
    let app = app(global)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| CliError::failed("starting the runtime", &error))?;
    let code = runtime.block_on(async {
        match verb {
            Verb::Plan(args) => plan::run(&args, &app).await,
            Verb::Up(args) => up::run(&args, &app).await,
            Verb::Status(args) => status::run(&args, &app).await,
            Verb::Load(args) => load::run(&args, &app).await,
            Verb::Watch(args) => watch::run(&args, &app).await,
            Verb::Open(args) => open::run(&args, &app).await,
            Verb::Logs(args) => logs::run(&args, &app).await,
            Verb::Down(args) => down::run(&args, &app).await,
            Verb::Test(args) => test::run(&args, &app).await,
            Verb::Explain(args) => explain::run(&args, &app).await,
            Verb::Cluster(verb) => cluster::run(&verb, &app).await,
            Verb::Ip(args) => ip::run(&args, &app).await,
            Verb::Completions(_)
            | Verb::Man
            | Verb::Validate(_)
            | Verb::List(_)
            | Verb::History(_)
            | Verb::Init(_)
            | Verb::Kubectl(_)
            | Verb::Image(_) => {
                unreachable!("handled above")
            }
        }
    });
    // A blocking read of standard input must not keep the process.
    runtime.shutdown_background();
    code
}

fn log(verbose: bool) {
    // Libraries report what the caller handles anyway; they are heard with `--verbose` only.
    let filter = tracing_subscriber::EnvFilter::new(if verbose {
        "info,k8slab=debug,kube=debug"
    } else {
        "k8slab=error"
    });
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second subscriber is one too many only in tests.
    let _ = subscriber.with_target(verbose).try_init();
}

/// The whole command line as Markdown, for the reference and its test.
pub fn reference() -> String {
    fn write(command: &mut clap::Command, path: &str, text: &mut String) {
        let path = if path.is_empty() {
            command.get_name().to_owned()
        } else {
            format!("{path} {}", command.get_name())
        };
        let help = command.clone().bin_name(&path).render_long_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        text.push_str(&format!(
            "## `{path}`\n\n```text\n{}\n```\n\n",
            help.join("\n").trim_end()
        ));
        for sub in command.get_subcommands_mut().filter(|sub| !sub.is_hide_set()) {
            write(sub, &path, text);
        }
    }
    let mut command = Cli::command().term_width(110);
    command.build();
    let mut text = String::from("# The command line\n\nWritten by a test from the program's own help.\n\n");
    write(&mut command, "", &mut text);
    text.trim_end().to_owned() + "\n"
}
