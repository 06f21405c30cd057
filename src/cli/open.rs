//! `open`: local ports that lead to the lab's endpoints, whichever pod is behind them at the moment.

use std::net::Ipv4Addr;

use tokio::net::{TcpListener, TcpStream};

use super::app::App;
use super::error::CliError;
use super::{labs, signals};
use crate::exit::Code;
use crate::k8s::forward::{self, Connection};
use crate::scenario::model::Endpoint;
use crate::scenario::suggestion;
use crate::steps::chain;
use crate::ui::Format;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The lab
    #[arg(value_name = "SCENARIO")]
    scenario: String,
    /// One of its endpoints; left out, all of them
    #[arg(value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// The local port, where one endpoint is opened; a free one where this is taken
    #[arg(long, value_name = "PORT", requires = "endpoint")]
    port: Option<u16>,
}

pub(super) async fn run(args: &Args, app: &App) -> Result<Code, CliError> {
    let known = labs::the_one(app, Some(&args.scenario))?;
    let scenario = app.scenario_of(&known.lab);
    let endpoints: Vec<Endpoint> = match &args.endpoint {
        None => scenario.endpoints.clone(),
        Some(name) => vec![scenario.endpoint(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = scenario
                .endpoints
                .iter()
                .map(|endpoint| endpoint.name.as_str())
                .collect();
            let nearest = suggestion::nearest(name, names.iter().copied());
            let hint = nearest.map_or_else(
                || format!("there is: {}", names.join(", ")),
                |n| format!("did you mean `{n}`?"),
            );
            CliError::usage(format!("unknown endpoint `{name}`")).hint(hint)
        })?],
    };
    if endpoints.is_empty() {
        return Err(CliError::usage(format!("`{}` has no endpoints", scenario.name)));
    }
    let (session, _) = labs::session(app, &known.lab).await?;
    for endpoint in endpoints {
        let listener = listen(args.port.unwrap_or(endpoint.port)).await?;
        let local = listener
            .local_addr()
            .map_err(|error| CliError::failed("listening", &error))?;
        if app.out.format == Format::Json {
            app.out
                .json_line(&serde_json::json!({"endpoint": endpoint.name, "url": format!("http://{local}/")}));
        } else {
            app.out.line(format!("{}   http://{local}/", endpoint.name));
        }
        let (client, namespace, out) = (
            session.cluster.client.clone(),
            known.lab.namespace.clone(),
            app.out.clone(),
        );
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (client, namespace, endpoint, out) =
                    (client.clone(), namespace.clone(), endpoint.clone(), out.clone());
                tokio::spawn(async move {
                    if let Err(error) = carry(&client, &namespace, &endpoint, stream).await {
                        out.error(format!("{}: {error}", endpoint.name));
                    }
                });
            }
        });
    }
    signals::interrupted().await;
    Ok(Code::Fine)
}

/// The wanted port, or a free one where that is taken or needs rights.
async fn listen(port: u16) -> Result<TcpListener, CliError> {
    if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        return Ok(listener);
    }
    let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    any.map_err(|error| CliError::failed("listening on a port of 127.0.0.1", &error))
}

/// One connection, to a pod that is ready now: the next one may go to another.
async fn carry(
    client: &kube::Client,
    namespace: &str,
    endpoint: &Endpoint,
    mut stream: TcpStream,
) -> Result<(), String> {
    let (pod, port) = forward::pod_behind(client, namespace, endpoint)
        .await
        .map_err(|error| chain(&error))?;
    let connection: Connection = forward::connect(client, namespace, &pod, port)
        .await
        .map_err(|error| chain(&error))?;
    let (mut far, forwarder) = connection.into_parts();
    // Either side may hang up at any time; that is how connections end.
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut far).await;
    drop(far);
    forwarder.abort();
    Ok(())
}
