//! Several byte streams in one WebSocket: Kubernetes' channel protocols, v1, v4 and v5, binary and base64.
//!
//! Pure but for the handshake. Source: `apimachinery/pkg/util/httpstream/wsstream`, `util/remotecommand/constants.go`.

use ::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::{Body, Refused, text};

/// Channel numbers of exec and attach.
pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;
/// v5: the next byte names the channel that is closed.
pub(super) const CLOSE: u8 = 255;

/// Which protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) name: &'static str,
    base64: bool,
    /// Of the channels: 1, 4 or 5; 0 where there are none.
    pub(super) version: u8,
}

const fn protocol(name: &'static str, base64: bool, version: u8) -> Protocol {
    Protocol { name, base64, version }
}

/// For exec and attach, the best first.
pub(super) const REMOTE_COMMAND: &[Protocol] = &[
    protocol("v5.channel.k8s.io", false, 5),
    protocol("v4.channel.k8s.io", false, 4),
    protocol("v4.base64.channel.k8s.io", true, 4),
    protocol("channel.k8s.io", false, 1),
    protocol("base64.channel.k8s.io", true, 1),
];

/// kubectl's port-forward: the messages are pieces of a SPDY connection and have no channels.
pub(super) const SPDY_TUNNEL: Protocol = protocol("SPDY/3.1+portforward.k8s.io", false, 0);

/// For port-forward. There is no v5: clients that offer it get v4.
pub(super) const PORT_FORWARD: &[Protocol] = &[
    SPDY_TUNNEL,
    protocol("v4.channel.k8s.io", false, 4),
    protocol("v4.base64.channel.k8s.io", true, 4),
];

/// What a client that names no protocol gets.
const UNNAMED: Protocol = protocol("", false, 1);

impl Protocol {
    /// The best of `known` that the client offers.
    fn choose(headers: &HeaderMap, known: &[Self]) -> Result<Self, Refused> {
        let lines = headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|line| line.to_str().ok());
        let offered: Vec<&str> = lines
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        if offered.is_empty() {
            return Ok(UNNAMED);
        }
        let found = known.iter().find(|protocol| offered.contains(&protocol.name)).copied();
        found.ok_or_else(|| {
            Refused::bad_request(format!(
                "none of the offered WebSocket protocols is known: {}",
                offered.join(", ")
            ))
        })
    }

    /// Bytes of a channel as a message.
    pub(super) fn encode(self, channel: u8, bytes: &[u8]) -> Message {
        if self.base64 {
            let mut message = char::from(b'0' + channel).to_string();
            BASE64_STANDARD.encode_string(bytes, &mut message);
            return Message::text(message);
        }
        let mut message = BytesMut::with_capacity(1 + bytes.len());
        message.put_u8(channel);
        message.put_slice(bytes);
        Message::binary(message.freeze())
    }

    /// Channel and bytes of a message; `None` for messages that carry none.
    pub(super) fn decode(self, message: Message) -> Option<(u8, Bytes)> {
        match message {
            Message::Binary(mut bytes) if !self.base64 => {
                let channel = *bytes.first()?;
                Some((channel, bytes.split_off(1)))
            }
            // Some clients send text for what is plain text.
            Message::Text(text) => {
                let mut bytes = Bytes::from(text);
                let first = *bytes.first()?;
                let rest = bytes.split_off(1);
                if self.base64 {
                    Some((first.wrapping_sub(b'0'), BASE64_STANDARD.decode(rest).ok()?.into()))
                } else {
                    Some((first, rest))
                }
            }
            _ => None,
        }
    }
}

/// The last message of a connection.
pub(super) fn goodbye() -> Message {
    Message::Close(Some(CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    }))
}

/// A WebSocket that is being opened: the answer to send, and the socket that comes after it.
pub(super) struct Opening {
    pub(super) response: Response<Body>,
    pub(super) protocol: Protocol,
    upgrade: hyper::upgrade::OnUpgrade,
}

impl Opening {
    /// Answers a handshake.
    pub(super) fn accept(mut request: Request<Incoming>, known: &[Protocol]) -> Result<Self, Refused> {
        let headers = request.headers();
        let says = |name, word: &str| {
            let value = headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
                .unwrap_or_default();
            value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
        };
        if says(header::UPGRADE, "SPDY/3.1") {
            return Err(Refused(
                StatusCode::NOT_IMPLEMENTED,
                "SPDY is not spoken by this node: use a WebSocket".into(),
            ));
        }
        if !says(header::UPGRADE, "websocket") || !says(header::CONNECTION, "upgrade") {
            return Err(Refused::bad_request(
                "unable to upgrade: missing upgrade headers in request",
            ));
        }
        let key = headers
            .get(header::SEC_WEBSOCKET_KEY)
            .ok_or_else(|| Refused::bad_request("missing Sec-WebSocket-Key"))?;
        let accept = derive_accept_key(key.as_bytes());
        let protocol = Protocol::choose(headers, known)?;
        let mut response = Response::new(text(Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let answer = response.headers_mut();
        answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Ok(accept) = HeaderValue::try_from(accept) {
            answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        if !protocol.name.is_empty() {
            answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol.name));
        }
        Ok(Self {
            response,
            protocol,
            upgrade: hyper::upgrade::on(&mut request),
        })
    }

    /// Runs `work` on the socket once the handshake is through; gives back the answer to the handshake.
    pub(super) fn then<F>(
        self,
        work: impl FnOnce(WebSocketStream<TokioIo<Upgraded>>, Protocol) -> F + Send + 'static,
    ) -> Response<Body>
    where
        F: Future<Output = ()> + Send,
    {
        let Self {
            response,
            protocol,
            upgrade,
        } = self;
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => {
                    // Small buffers: most connections carry a line now and then.
                    let config = WebSocketConfig::default()
                        .read_buffer_size(16 << 10)
                        .write_buffer_size(0);
                    let io = TokioIo::new(upgraded);
                    work(
                        WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await,
                        protocol,
                    )
                    .await;
                }
                Err(error) => tracing::debug!("upgrading a connection: {error}"),
            }
        });
        response
    }
}

/// The Status on the error channel: how a command ended.
pub(super) fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The Status on the error channel: why there was no command at all.
pub(super) fn failure(message: &str) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "message": format!("Internal error occurred: {message}"),
        "reason": "InternalError", "details": {"causes": [{"message": message}]}, "code": 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(offers: &[&'static str], known: &[Protocol]) -> Result<&'static str, Refused> {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer));
        }
        Protocol::choose(&headers, known).map(|protocol| protocol.name)
    }

    #[test]
    fn the_best_protocol_that_is_offered_is_taken() {
        assert_eq!(
            chosen(&["v4.channel.k8s.io,v5.channel.k8s.io"], REMOTE_COMMAND),
            Ok("v5.channel.k8s.io")
        );
        assert_eq!(
            chosen(&["channel.k8s.io", "v4.base64.channel.k8s.io"], REMOTE_COMMAND),
            Ok("v4.base64.channel.k8s.io")
        );
        assert_eq!(
            chosen(&["v5.channel.k8s.io, v4.channel.k8s.io"], PORT_FORWARD),
            Ok("v4.channel.k8s.io")
        );
        assert_eq!(chosen(&[], PORT_FORWARD), Ok(""));
        assert!(chosen(&["v9.channel.k8s.io"], REMOTE_COMMAND).is_err());
    }

    #[test]
    fn frames_carry_a_channel_and_bytes() {
        let [v5, _, base64, ..] = REMOTE_COMMAND else { panic!() };
        assert_eq!(v5.encode(STDOUT, b"hi"), Message::binary(vec![1, b'h', b'i']));
        assert_eq!(
            v5.decode(Message::binary(vec![255, 0])),
            Some((CLOSE, Bytes::from_static(&[0])))
        );
        assert_eq!(v5.decode(Message::binary(vec![])), None);
        assert_eq!(v5.decode(Message::Ping(Bytes::new())), None);
        assert_eq!(base64.encode(STDERR, b"hi"), Message::text("2aGk="));
        assert_eq!(
            base64.decode(Message::text("0aGkK")),
            Some((STDIN, Bytes::from_static(b"hi\n")))
        );
        assert_eq!(base64.decode(Message::text("0***")), None);
    }

    #[test]
    fn an_exit_code_is_a_status_with_a_cause() {
        assert_eq!(exit_status(0).to_string(), r#"{"metadata":{},"status":"Success"}"#);
        assert_eq!(
            exit_status(3).to_string(),
            "{\"metadata\":{},\"status\":\"Failure\",\"message\":\"command terminated with non-zero exit code: exit status 3\",\
             \"reason\":\"NonZeroExitCode\",\"details\":{\"causes\":[{\"reason\":\"ExitCode\",\"message\":\"3\"}]}}"
        );
    }
}
