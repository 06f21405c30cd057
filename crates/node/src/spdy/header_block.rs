//! Header blocks: names and values, squeezed by one zlib stream that goes on over all frames of a direction.
//!
//! Reading understands whatever a peer's zlib makes of it, with SPDY's dictionary or without. Writing uses stored
//! blocks, which every inflater reads: what we have to say is some bytes long.

use std::sync::OnceLock;

use bytes::{BufMut, BytesMut};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::Error;

/// Names and values, in the order of the wire. Names are lower case there.
pub(crate) type Headers = Vec<(String, String)>;

/// A block is some hundred bytes; nobody sends us more than this.
const MAX_BLOCK: usize = 16 << 10;
/// deflate's window.
const WINDOW: usize = 32 << 10;
/// Adler-32 of the dictionary, by which a zlib stream says that it was made with it.
const DICTIONARY_ID: [u8; 4] = [0xe3, 0xc6, 0xa7, 0xc2];
/// zlib's header for a stream without dictionary: deflate, 32 KiB window, fastest.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x01];

/// An empty stored block, at which an inflater (Go's waits for it) gives out what it has.
const FLUSH: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// Words with their lengths before them, then a run of text: SPDY draft 3, §2.6.10.1.
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
const TEXT: &str = "1001012012022052063003023033043053063074024054064074084094104114124134144154164175025045052\
03 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 \
Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct \
Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8\
charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> &'static [u8] {
    static DICTIONARY: OnceLock<Vec<u8>> = OnceLock::new();
    DICTIONARY.get_or_init(|| {
        let mut bytes = Vec::with_capacity(1423);
        for word in WORDS {
            bytes.put_u32(word.len() as u32);
            bytes.put_slice(word.as_bytes());
        }
        bytes.put_slice(TEXT.as_bytes());
        bytes
    })
}

/// Reads the blocks of one direction.
#[derive(Default)]
pub(super) struct Reader {
    /// Made with the first block, which begins with zlib's header.
    inflate: Option<Inflate>,
}

impl Reader {
    pub(super) fn read(&mut self, mut block: &[u8]) -> Result<Headers, Error> {
        let inflate = match &mut self.inflate {
            Some(inflate) => inflate,
            none => none.insert(Inflate::begin(&mut block)?),
        };
        parse(&inflate.push(block)?)
    }
}

struct Inflate {
    state: Box<DecompressorOxide>,
    window: Box<[u8]>,
    /// Where in the window the next byte goes.
    at: usize,
}

impl Inflate {
    /// Takes zlib's header (RFC 1950) off `block`: what follows is deflate, whose window may begin with the dictionary.
    fn begin(block: &mut &[u8]) -> Result<Self, Error> {
        let Some(([method, flags], rest)) = block.split_first_chunk::<2>() else {
            return Err(Error::HeaderBlock("zlib's header is missing"));
        };
        if method & 0x0f != 8 || u16::from_be_bytes([*method, *flags]) % 31 != 0 {
            return Err(Error::HeaderBlock("not a zlib stream"));
        }
        let mut window = vec![0; WINDOW].into_boxed_slice();
        let mut at = 0;
        *block = rest;
        if flags & 0x20 != 0 {
            let Some((DICTIONARY_ID, rest)) = rest.split_first_chunk::<4>().map(|(id, rest)| (*id, rest)) else {
                return Err(Error::HeaderBlock("made with another dictionary"));
            };
            *block = rest;
            at = dictionary().len();
            window[..at].copy_from_slice(dictionary());
        }
        let state = Box::default();
        Ok(Self { state, window, at })
    }

    fn push(&mut self, mut input: &[u8]) -> Result<Vec<u8>, Error> {
        let mut output = Vec::new();
        loop {
            let (status, read, written) = decompress(
                &mut self.state,
                input,
                &mut self.window,
                self.at,
                TINFL_FLAG_HAS_MORE_INPUT,
            );
            input = &input[read..];
            output.extend_from_slice(&self.window[self.at..self.at + written]);
            self.at = (self.at + written) % WINDOW;
            if output.len() > MAX_BLOCK {
                return Err(Error::HeaderBlock("longer than 16 KiB"));
            }
            match status {
                TINFLStatus::NeedsMoreInput => return Ok(output),
                TINFLStatus::HasMoreOutput => {}
                _ => return Err(Error::HeaderBlock("not deflated properly")),
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, Error> {
    let count = number(&mut block)?;
    let mut headers = Headers::new();
    for _ in 0..count {
        headers.push((text(&mut block)?, text(&mut block)?));
    }
    if block.is_empty() {
        Ok(headers)
    } else {
        Err(Error::HeaderBlock("something follows it"))
    }
}

fn number(block: &mut &[u8]) -> Result<usize, Error> {
    let (bytes, rest) = block
        .split_first_chunk::<4>()
        .ok_or(Error::HeaderBlock("it ends early"))?;
    *block = rest;
    Ok(u32::from_be_bytes(*bytes) as usize)
}

fn text(block: &mut &[u8]) -> Result<String, Error> {
    let length = number(block)?;
    let (bytes, rest) = block
        .split_at_checked(length)
        .ok_or(Error::HeaderBlock("it ends early"))?;
    *block = rest;
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::HeaderBlock("it is no text"))
}

/// Writes the blocks of one direction.
#[derive(Default)]
pub(super) struct Writer {
    begun: bool,
}

impl Writer {
    pub(super) fn write(&mut self, headers: &[(String, String)], to: &mut BytesMut) {
        let mut plain = BytesMut::new();
        plain.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(text.len() as u32);
            plain.put_slice(text.as_bytes());
        }
        if !std::mem::replace(&mut self.begun, true) {
            to.put_slice(&ZLIB_HEADER);
        }
        for piece in plain.chunks(usize::from(u16::MAX)) {
            let length = piece.len() as u16;
            // RFC 1951 §3.2.4: a stored block, not the last one.
            to.put_u8(0);
            to.put_u16_le(length);
            to.put_u16_le(!length);
            to.put_slice(piece);
        }
        to.put_slice(&FLUSH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_one_that_peers_name() {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in dictionary() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(dictionary().len(), 1423);
        assert_eq!(((b << 16) | a).to_be_bytes(), DICTIONARY_ID);
    }

    #[test]
    fn blocks_that_zlib_made_with_the_dictionary_are_read_in_their_order() {
        // Python: `zlib.compressobj(zdict=…)`, flushed after each block.
        let first =
            b"\x78\xbb\xe3\xc6\xa7\xc2\x02\x25\x3a\x70\x3a\x2b\x29\x4a\x4d\xcc\x85\x16\x25\xac\xa9\xa0\x80\x86\x14\
\xcb\x45\xe0\x1c\x60\x61\x60\x60\x00\xa4\x39\x8b\x20\xd1\x98\x09\x4a\xde\x8c\x06\x00\x00\x00\x00\xff\xff";
        let second = b"\xc2\xaa\x19\x54\x0e\x25\x12\xd6\x0b\x00\x00\x00\xff\xff";
        let expected = |kind: &str| {
            [("streamtype", kind), ("port", "8000"), ("requestid", "0")].map(|(n, v)| (n.to_owned(), v.to_owned()))
        };
        let mut reader = Reader::default();
        assert_eq!(reader.read(first).unwrap(), expected("error"));
        assert_eq!(reader.read(second).unwrap(), expected("data"));
    }

    #[test]
    fn what_is_no_header_block_is_refused() {
        for bad in [
            &b""[..],
            b"\x78",
            b"\x78\x02",
            b"\x78\xbb\0\0\0\0",
            b"\x78\x01\x07",
            b"\x78\x01\0\x02\0\xfd\xff\0\0",
        ] {
            assert!(Reader::default().read(bad).is_err(), "{bad:?}");
        }
    }
}
