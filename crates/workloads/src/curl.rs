//! `curl`, as much of it as the lab's pages use, so that an image `FROM scratch` can be asked from inside.
//!
//! Plain HTTP/1.1. Exit codes are curl's own: 2 usage, 3 bad URL, 6 no such host, 7 no connection, 1 unsupported
//! protocol, 22 an HTTP error with `-f`, 23 output not written, 28 timeout, 52 no answer, 56 answer cut off.

use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What went wrong: curl's exit code and words.
#[derive(Debug, PartialEq, Eq)]
struct Failure(i32, String);

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    silent: bool,
    show_error: bool,
    fail: bool,
    include: bool,
    follow: bool,
    method: Option<String>,
    headers: Vec<(String, String)>,
    data: Option<String>,
    output: Option<String>,
    write_out: Option<String>,
    max_time: Option<Duration>,
    url: String,
}

/// Runs as curl does; its exit code.
pub(crate) fn main(args: &[String]) -> i32 {
    let options = match parse(args) {
        Ok(options) => options,
        Err(Failure(code, message)) => {
            crate::complain(&format!("curl: {message}"));
            return code;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            crate::complain(&format!("curl: ({}) {error}", 27));
            return 27;
        }
    };
    let limit = options.max_time.unwrap_or(Duration::MAX);
    let outcome = runtime.block_on(async {
        match tokio::time::timeout(limit, run(&options)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure(
                28,
                format!("Operation timed out after {} milliseconds", limit.as_millis()),
            )),
        }
    });
    match outcome {
        Ok(()) => 0,
        Err(Failure(code, message)) => {
            if !options.silent || options.show_error {
                crate::complain(&format!("curl: ({code}) {message}"));
            }
            code
        }
    }
}

fn parse(args: &[String]) -> Result<Options, Failure> {
    let usage = |message: String| Failure(2, message);
    let mut options = Options::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if !arg.starts_with('-') {
            if !options.url.is_empty() {
                return Err(usage(format!("one URL at a time: `{}` and `{arg}`", options.url)));
            }
            options.url.clone_from(arg);
            continue;
        }
        // `-sf` is `-s -f`; the value of `-XPOST` may follow at once.
        let (flags, mut inline): (Vec<String>, Option<String>) = match arg.strip_prefix("--") {
            Some(_) => (vec![arg.clone()], None),
            None => split(arg),
        };
        for flag in flags {
            let mut value = || {
                inline
                    .take()
                    .or_else(|| rest.next().cloned())
                    .ok_or_else(|| usage(format!("option {flag}: requires parameter")))
            };
            match flag.as_str() {
                "-s" | "--silent" => options.silent = true,
                "-S" | "--show-error" => options.show_error = true,
                "-f" | "--fail" => options.fail = true,
                "-i" | "--include" => options.include = true,
                "-L" | "--location" => options.follow = true,
                "-X" | "--request" => options.method = Some(value()?),
                "-o" | "--output" => options.output = Some(value()?),
                "-w" | "--write-out" => options.write_out = Some(value()?),
                "-d" | "--data" | "--data-raw" | "--data-ascii" => {
                    let more = value()?;
                    options.data = Some(
                        options
                            .data
                            .take()
                            .map_or(more.clone(), |data| format!("{data}&{more}")),
                    );
                }
                "-H" | "--header" => {
                    let text = value()?;
                    let (name, value) = text.split_once(':').unwrap_or((&text, ""));
                    options.headers.push((name.trim().into(), value.trim().into()));
                }
                "-m" | "--max-time" => {
                    let text = value()?;
                    let seconds = text
                        .parse()
                        .ok()
                        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                    let seconds = seconds
                        .ok_or_else(|| usage(format!("option {flag}: expected a proper numerical parameter")))?;
                    options.max_time = Some(seconds);
                }
                _ => return Err(usage(format!("option {flag}: is unknown"))),
            }
        }
    }
    if options.url.is_empty() {
        return Err(usage("no URL specified".into()));
    }
    Ok(options)
}

/// The single-letter flags of one argument, and the value that follows the last one in it.
fn split(arg: &str) -> (Vec<String>, Option<String>) {
    let mut flags = Vec::new();
    let letters = &arg[1..];
    for (at, letter) in letters.char_indices() {
        flags.push(format!("-{letter}"));
        if "XowdHm".contains(letter) {
            let value = &letters[at + letter.len_utf8()..];
            return (flags, (!value.is_empty()).then(|| value.into()));
        }
    }
    (flags, None)
}

async fn run(options: &Options) -> Result<(), Failure> {
    let mut url = parse_url(&options.url)?;
    let mut response = request(&url, options).await?;
    for _ in 0..10 {
        let Some(next) = redirect(&url, &response).filter(|_| options.follow) else {
            break;
        };
        url = parse_url(&next)?;
        response = request(&url, options).await?;
    }
    let status = response.status();
    if options.fail && status.as_u16() >= 400 {
        return Err(Failure(
            22,
            format!("The requested URL returned error: {}", status.as_u16()),
        ));
    }
    let mut out: Box<dyn std::io::Write> = match &options.output {
        Some(path) => Box::new(std::fs::File::create(path).map_err(|e| Failure(23, format!("{path}: {e}")))?),
        None => Box::new(std::io::stdout().lock()),
    };
    let unwritten = |error: std::io::Error| Failure(23, format!("Failure writing output: {error}"));
    if options.include {
        write_head(&mut out, &response).map_err(unwritten)?;
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure(56, format!("Recv failure: {error}")))?;
        if let Some(data) = frame.data_ref() {
            out.write_all(data).map_err(unwritten)?;
        }
    }
    out.flush().map_err(unwritten)?;
    if let Some(format) = &options.write_out {
        write!(std::io::stdout(), "{}", write_out(format, status)).map_err(unwritten)?;
    }
    Ok(())
}

fn parse_url(text: &str) -> Result<Uri, Failure> {
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let bad = || Failure(3, format!("URL rejected: `{text}`"));
    let uri: Uri = full.parse().map_err(|_| bad())?;
    match uri.scheme_str() {
        Some("http") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        Some("http") | None => Err(bad()),
        Some(scheme) => Err(Failure(1, format!("Protocol \"{scheme}\" not supported"))),
    }
}

fn redirect(from: &Uri, response: &Response<Incoming>) -> Option<String> {
    if !response.status().is_redirection() {
        return None;
    }
    let to = response.headers().get(header::LOCATION)?.to_str().ok()?;
    if to.starts_with('/') {
        Some(format!("http://{}{to}", from.authority()?))
    } else {
        Some(to.into())
    }
}

async fn request(url: &Uri, options: &Options) -> Result<Response<Incoming>, Failure> {
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().unwrap_or(80);
    let stream = connect(host, port).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure(52, error.to_string()))?;
    tokio::spawn(connection);
    let request = build(url, options)?;
    sender
        .send_request(request)
        .await
        .map_err(|_| Failure(52, "Empty reply from server".into()))
}

fn build(url: &Uri, options: &Options) -> Result<Request<Full<Bytes>>, Failure> {
    let default = if options.data.is_some() { "POST" } else { "GET" };
    let method = options.method.as_deref().unwrap_or(default);
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Failure(2, format!("bad method `{method}`")))?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(Full::from(options.data.clone().unwrap_or_default()));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| Failure(3, format!("URL rejected: `{url}`")))?;
    let headers = request.headers_mut();
    let authority = url.authority().map_or("", |authority| authority.as_str());
    if let Ok(value) = HeaderValue::from_str(authority) {
        headers.insert(header::HOST, value);
    }
    headers.insert(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("k8slab-curl/", env!("CARGO_PKG_VERSION"))),
    );
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    if options.data.is_some() {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
    }
    for (name, value) in &options.headers {
        let bad = || Failure(2, format!("bad header `{name}: {value}`"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        headers.insert(name, HeaderValue::from_str(value).map_err(|_| bad())?);
    }
    Ok(request)
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, Failure> {
    let addresses = resolve(host, port).ok_or_else(|| Failure(6, format!("Could not resolve host: {host}")))?;
    let mut last = String::new();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.to_string(),
        }
    }
    Err(Failure(7, format!("Failed to connect to {host} port {port}: {last}")))
}

/// Literal addresses, then /etc/hosts as written there, then the system's resolver.
fn resolve(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
    if let Ok(address) = literal {
        return Some(vec![SocketAddr::new(address, port)]);
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let mut found: Vec<SocketAddr> = in_hosts(&hosts, host)
        .map(|address| SocketAddr::new(address, port))
        .collect();
    if found.is_empty() {
        found = (host, port).to_socket_addrs().ok()?.collect();
    }
    (!found.is_empty()).then_some(found)
}

fn in_hosts<'a>(hosts: &'a str, host: &'a str) -> impl Iterator<Item = std::net::IpAddr> + 'a {
    hosts.lines().filter_map(move |line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    })
}

fn write_head(out: &mut dyn std::io::Write, response: &Response<Incoming>) -> std::io::Result<()> {
    let status = response.status();
    write!(
        out,
        "HTTP/1.1 {} {}\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default()
    )?;
    for (name, value) in response.headers() {
        write!(out, "{name}: ")?;
        out.write_all(value.as_bytes())?;
        out.write_all(b"\r\n")?;
    }
    out.write_all(b"\r\n")
}

/// `%{http_code}`, `%{response_code}` and `\n`, the ones that scripts use.
fn write_out(format: &str, status: StatusCode) -> String {
    let code = format!("{:03}", status.as_u16());
    format
        .replace("%{http_code}", &code)
        .replace("%{response_code}", &code)
        .replace("\\n", "\n")
        .replace("\\t", "\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Options, Failure> {
        parse(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn flags_may_stand_together_and_values_may_follow_at_once() {
        let options = parsed(&["-sfXPOST", "-H", "A: b", "-d", "x=1", "-d", "y=2", "host/path"]).unwrap();
        assert!(options.silent && options.fail);
        assert_eq!(options.method.as_deref(), Some("POST"));
        assert_eq!(options.headers, [("A".to_owned(), "b".to_owned())]);
        assert_eq!(options.data.as_deref(), Some("x=1&y=2"));
        assert_eq!(options.url, "host/path");
    }

    #[test]
    fn usage_errors_have_curls_code() {
        assert_eq!(parsed(&["--no-such"]).unwrap_err().0, 2);
        assert_eq!(
            parsed(&["-X"]).unwrap_err(),
            Failure(2, "option -X: requires parameter".into())
        );
        assert_eq!(parsed(&[]).unwrap_err().0, 2);
    }

    #[test]
    fn a_url_needs_no_scheme_and_https_is_refused() {
        assert_eq!(
            parse_url("localhost:8000/change/42/33").unwrap().path(),
            "/change/42/33"
        );
        assert_eq!(parse_url("https://localhost").unwrap_err().0, 1);
        assert_eq!(parse_url("http://").unwrap_err().0, 3);
    }

    #[test]
    fn names_in_the_hosts_file_are_found_and_comments_are_not() {
        let hosts = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n10.244.0.7 pod-1 # here\n";
        assert_eq!(
            in_hosts(hosts, "LOCALHOST").collect::<Vec<_>>(),
            ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]
        );
        assert_eq!(in_hosts(hosts, "pod-1").count(), 1);
        assert_eq!(in_hosts(hosts, "here").count(), 0);
    }

    #[test]
    fn an_unreachable_port_and_an_unknown_host_have_curls_codes() {
        let run = |args: &[&str]| main(&args.iter().map(ToString::to_string).collect::<Vec<_>>());
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        assert_eq!(run(&["-s", &format!("127.0.0.1:{free}/")]), 7);
        assert_eq!(run(&["-s", "no-such-host.invalid/"]), 6);
    }

    #[test]
    fn an_http_error_is_only_an_error_with_fail() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                use std::io::Read as _;
                let mut stream = stream;
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        let run = |args: &[&str]| main(&args.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(run(&["-s", &url]), 0);
        assert_eq!(run(&["-sf", &url]), 22);
    }
}
