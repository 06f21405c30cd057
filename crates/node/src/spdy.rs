//! SPDY/3.1, the part that Kubernetes' streams need: frames out of bytes, bytes out of frames.
//!
//! Pure: no sockets, no streams' states. There is no flow control, as in the library that every Kubernetes client
//! uses: it neither sends WINDOW_UPDATE nor waits for one, so a peer that counted would stop after 64 KiB for ever.
//! Backpressure is the transport's. Source: SPDY draft 3.1; moby/spdystream `spdy/{types,read,write}.go` (v0.5.0).

mod header_block;

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub(crate) use self::header_block::Headers;

const VERSION: u16 = 3;
const FIN: u8 = 1;
const CONTROL: u32 = 1 << 31;
/// Stream ids have 31 bits.
const ID: u32 = CONTROL - 1;
/// Of a control frame; only header blocks have any length to speak of.
const MAX_CONTROL: usize = 16 << 10;

/// What is wrong with what the peer sent. There is no going on after one.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    #[error("SPDY version: expected 3, got {0}")]
    Version(u16),
    #[error("a control frame of {0} bytes")]
    TooLong(usize),
    #[error("a frame of type {0} that is too short")]
    TooShort(u16),
    #[error("header block: {0}")]
    HeaderBlock(&'static str),
}

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    ProtocolError = 1,
    RefusedStream = 3,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Opens a stream; with `fin` the opener says nothing on it.
    SynStream { stream: u32, fin: bool, headers: Headers },
    /// Accepts one.
    SynReply { stream: u32, fin: bool, headers: Headers },
    /// Ends one at once, both ways.
    RstStream { stream: u32, status: u32 },
    /// To be sent back as it is, if the peer began it.
    Ping(u32),
    /// No more streams.
    GoAway { last_stream: u32, status: u32 },
    /// A piece of a stream; with `fin` the last one of this direction. A long frame comes in several pieces.
    Data { stream: u32, fin: bool, bytes: Bytes },
}

/// Bytes → frames, for one direction of one connection.
#[derive(Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    headers: header_block::Reader,
    /// A data frame that has begun: stream, `fin`, bytes to come.
    data: Option<(u32, bool, usize)>,
}

impl Decoder {
    /// Adds what has come.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, as soon as there is one. Frames that ask nothing of us are passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if let Some(piece) = self.piece() {
                return Ok(Some(piece));
            }
            let Some(head) = self.buffer.first_chunk::<8>().copied() else {
                return Ok(None);
            };
            let [a, b, c, d, flags, length @ ..] = head;
            let word = u32::from_be_bytes([a, b, c, d]);
            let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            if word & CONTROL == 0 {
                self.buffer.advance(8);
                self.data = Some((word, flags & FIN != 0, length));
                continue;
            }
            let (version, kind) = ((word >> 16) as u16 & 0x7fff, word as u16);
            if version != VERSION {
                return Err(Error::Version(version));
            }
            if length > MAX_CONTROL {
                return Err(Error::TooLong(length));
            }
            if self.buffer.len() < 8 + length {
                return Ok(None);
            }
            self.buffer.advance(8);
            let body = self.buffer.split_to(length).freeze();
            if let Some(frame) = self.control(kind, flags & FIN != 0, body)? {
                return Ok(Some(frame));
            }
        }
    }

    /// A piece of the data frame that has begun.
    fn piece(&mut self) -> Option<Frame> {
        let (stream, fin, left) = self.data?;
        if self.buffer.is_empty() && left > 0 {
            return None;
        }
        let bytes = self.buffer.split_to(left.min(self.buffer.len())).freeze();
        let left = left - bytes.len();
        self.data = (left > 0).then_some((stream, fin, left));
        let fin = fin && left == 0;
        Some(Frame::Data { stream, fin, bytes })
    }

    fn control(&mut self, kind: u16, fin: bool, mut body: Bytes) -> Result<Option<Frame>, Error> {
        let short = Error::TooShort(kind);
        let mut word = || body.try_get_u32().map_err(|_| short.clone());
        let frame = match kind {
            1 => {
                let stream = word()? & ID;
                word()?; // the stream that this one belongs to
                if body.len() < 2 {
                    return Err(short);
                }
                let headers = self.headers.read(&body[2..])?; // after priority and slot
                Frame::SynStream { stream, fin, headers }
            }
            2 | 8 => {
                let stream = word()? & ID;
                // Of HEADERS too, which nobody needs: its block goes through the same zlib stream.
                let headers = self.headers.read(&body)?;
                if kind == 8 {
                    return Ok(None);
                }
                Frame::SynReply { stream, fin, headers }
            }
            3 => Frame::RstStream {
                stream: word()? & ID,
                status: word()?,
            },
            6 => Frame::Ping(word()?),
            7 => Frame::GoAway {
                last_stream: word()? & ID,
                status: word()?,
            },
            // SETTINGS, WINDOW_UPDATE, and what later versions may bring.
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }
}

/// Frames → bytes, for one direction of one connection: frames go out in the order in which they were encoded.
#[derive(Default)]
pub(crate) struct Encoder {
    headers: header_block::Writer,
}

impl Encoder {
    /// The frame as it goes over the wire.
    pub(crate) fn encode(&mut self, frame: &Frame) -> Bytes {
        let mut body = BytesMut::new();
        let (kind, fin) = match frame {
            Frame::Data { stream, fin, bytes } => return data(*stream, *fin, bytes),
            Frame::SynStream { stream, fin, headers } => {
                body.put_u32(stream & ID);
                body.put_slice(&[0; 6]);
                self.headers.write(headers, &mut body);
                (1, *fin)
            }
            Frame::SynReply { stream, fin, headers } => {
                body.put_u32(stream & ID);
                self.headers.write(headers, &mut body);
                (2, *fin)
            }
            Frame::RstStream { stream, status } => {
                body.put_u32(stream & ID);
                body.put_u32(*status);
                (3, false)
            }
            Frame::Ping(id) => {
                body.put_u32(*id);
                (6, false)
            }
            Frame::GoAway { last_stream, status } => {
                body.put_u32(last_stream & ID);
                body.put_u32(*status);
                (7, false)
            }
        };
        let mut wire = BytesMut::with_capacity(8 + body.len());
        wire.put_u16(VERSION | 1 << 15);
        wire.put_u16(kind);
        wire.put_u32(u32::from(fin) << 24 | body.len() as u32);
        wire.put_slice(&body);
        wire.freeze()
    }
}

fn data(stream: u32, fin: bool, bytes: &[u8]) -> Bytes {
    let mut wire = BytesMut::with_capacity(8 + bytes.len());
    wire.put_u32(stream & ID);
    wire.put_u32(u32::from(fin) << 24 | bytes.len() as u32);
    wire.put_slice(bytes);
    wire.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let id = || 0..=ID;
        let headers = || prop::collection::vec(("[a-z]{1,12}", "[ -~]{0,300}"), 0..5);
        prop_oneof![
            (id(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::SynStream {
                stream,
                fin,
                headers
            }),
            (id(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::SynReply {
                stream,
                fin,
                headers
            }),
            (id(), any::<u32>()).prop_map(|(stream, status)| Frame::RstStream { stream, status }),
            any::<u32>().prop_map(Frame::Ping),
            (id(), any::<u32>()).prop_map(|(last_stream, status)| Frame::GoAway { last_stream, status }),
            (id(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..600)).prop_map(|(stream, fin, bytes)| {
                Frame::Data {
                    stream,
                    fin,
                    bytes: bytes.into(),
                }
            }),
        ]
    }

    /// Pieces of one data frame as the frame that they came from.
    fn joined(frames: Vec<Frame>, lengths: &[usize]) -> Vec<Frame> {
        let mut lengths = lengths.iter();
        let mut whole: Vec<Frame> = Vec::new();
        let mut left = 0;
        for frame in frames {
            let Frame::Data { stream, fin, bytes } = frame else {
                whole.push(frame);
                continue;
            };
            if left == 0 {
                left = lengths.next().unwrap() - bytes.len();
                whole.push(Frame::Data { stream, fin, bytes });
                continue;
            }
            left -= bytes.len();
            let Some(Frame::Data {
                fin: end, bytes: begun, ..
            }) = whole.last_mut()
            else {
                panic!()
            };
            *begun = [begun.as_ref(), bytes.as_ref()].concat().into();
            *end = fin;
        }
        whole
    }

    proptest! {
        #[test]
        fn frames_survive_the_wire_however_it_is_cut(
            frames in prop::collection::vec(any_frame(), 1..12),
            cut in 1_usize..900,
        ) {
            let mut encoder = Encoder::default();
            let wire: Vec<u8> = frames.iter().flat_map(|frame| encoder.encode(frame)).collect();
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for piece in wire.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    got.push(frame);
                }
            }
            let lengths: Vec<usize> = frames.iter().filter_map(|frame| match frame {
                Frame::Data { bytes, .. } => Some(bytes.len()),
                _ => None,
            }).collect();
            prop_assert_eq!(joined(got, &lengths), frames);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), control in any::<bool>(), kind in 0_u8..12) {
            let mut decoder = Decoder::default();
            if control {
                decoder.push(&[0x80, 3, 0, kind, 0, 0, 0, bytes.len().min(255) as u8]);
            }
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }

    #[test]
    fn another_version_and_an_endless_control_frame_are_refused() {
        let mut decoder = Decoder::default();
        decoder.push(&[0x80, 2, 0, 1, 0, 0, 0, 0]);
        assert_eq!(decoder.next(), Err(Error::Version(2)));
        let mut decoder = Decoder::default();
        decoder.push(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.next(), Err(Error::TooLong(0x00ff_ffff)));
    }

    #[test]
    fn settings_and_window_updates_are_passed_over() {
        let mut decoder = Decoder::default();
        decoder.push(&[0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0]);
        decoder.push(&[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 1, 0]);
        decoder.push(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 7]);
        assert_eq!(decoder.next(), Ok(Some(Frame::Ping(7))));
        assert_eq!(decoder.next(), Ok(None));
    }
}
