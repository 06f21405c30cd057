//! `Body`: what an answer consists of. Whole bytes, many shared pieces (lists), or a stream (watches, logs).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use futures::stream::BoxStream;
use http_body::{Frame, SizeHint};

/// Why a body could not be read to its end.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Pieces are put together to about this size before they are handed on.
const CHUNK: usize = 32 << 10;

/// The body of an answer.
pub struct Body(Kind);

enum Kind {
    Whole(Option<Bytes>),
    /// Objects share their bytes with the store; a list is never put together as one string. With the length that is
    /// left, where it is known.
    Pieces(Box<dyn Iterator<Item = Bytes> + Send>, Option<u64>),
    Stream(BoxStream<'static, Result<Bytes, BoxError>>),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self(Kind::Whole(None))
    }

    /// Pieces of `length` bytes in all.
    pub(crate) fn pieces(pieces: Vec<Bytes>) -> Self {
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self(Kind::Pieces(Box::new(pieces.into_iter()), Some(length)))
    }

    /// Pieces that are made only when they are wanted.
    pub(crate) fn lazy(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Self {
        Self(Kind::Pieces(Box::new(pieces), None))
    }

    /// An endless or unknown amount.
    pub(crate) fn stream(stream: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        Self(Kind::Stream(Box::pin(stream)))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Whole((!bytes.is_empty()).then_some(bytes)))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Pieces(pieces, left) => {
                let mut chunk = BytesMut::new();
                while chunk.len() < CHUNK {
                    match pieces.next() {
                        Some(piece) if chunk.is_empty() && piece.len() >= CHUNK => {
                            *left = left.map(|left| left - piece.len() as u64);
                            return Poll::Ready(Some(Ok(Frame::data(piece))));
                        }
                        Some(piece) => chunk.put(piece),
                        None => break,
                    }
                }
                *left = left.map(|left| left - chunk.len() as u64);
                Poll::Ready((!chunk.is_empty()).then(|| Ok(Frame::data(chunk.freeze()))))
            }
            Kind::Stream(stream) => stream
                .as_mut()
                .poll_next(context)
                .map(|item| item.map(|item| item.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Pieces(_, left) => *left == Some(0),
            Kind::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Pieces(_, Some(left)) => SizeHint::with_exact(*left),
            Kind::Pieces(_, None) | Kind::Stream(_) => SizeHint::default(),
        }
    }
}
