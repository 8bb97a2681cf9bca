//! Tells a picture in base64 from the path of one.
//!
//! Pure. `img/photos01` reads as base64, too, so the letters alone do not decide: what is decoded has
//! to begin as a picture does.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The content of a text in `images`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Picture<'a> {
    /// The picture itself, in base64.
    Base64(&'a str),
    /// A path.
    Path(&'a str),
    /// It reads as either, and begins as no picture that is known: most likely a path.
    Either(&'a str),
}

/// The number of base64 digits that are decoded to detect the image format.
const BEGINNING: usize = 24;

impl<'a> Picture<'a> {
    /// Detects the content of `text`, with or without the prefix of a data URL.
    pub(super) fn of(text: &'a str) -> Self {
        if let Some((kind, data)) = text.split_once(";base64,")
            && kind.starts_with("data:")
        {
            return Self::Base64(data);
        }
        let text = text.trim_ascii_end();
        let digits = text.trim_end_matches('=');
        let is_digit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '\r' | '\n');
        let padding = text.len() - digits.len();
        let whole = text.chars().filter(|c| !c.is_ascii_whitespace()).count() % 4 == 0;
        if !whole || padding > 2 || !digits.chars().all(is_digit) {
            return Self::Path(text);
        }
        let beginning: String =
            text.chars().filter(|c| !c.is_ascii_whitespace()).take(BEGINNING).collect();
        match STANDARD.decode(beginning) {
            Ok(bytes) if is_picture(&bytes) => Self::Base64(text),
            _ => Self::Either(text),
        }
    }
}

/// True where bytes begin as PNG, JPEG, GIF, WebP, BMP, TIFF, HEIC or AVIF do.
fn is_picture(bytes: &[u8]) -> bool {
    let begins = |with: &[u8]| bytes.starts_with(with);
    let at =
        |offset: usize, with: &[u8]| bytes.get(offset..).is_some_and(|it| it.starts_with(with));
    begins(b"\x89PNG")
        || begins(b"\xff\xd8\xff")
        || begins(b"GIF8")
        || (begins(b"RIFF") && at(8, b"WEBP"))
        || (begins(b"BM") && at(6, &[0; 4]))
        || begins(b"II*\0")
        || begins(b"MM\0*")
        || at(4, b"ftyp")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path sent as a picture would be refused by the server, unreadably.
    #[test]
    fn pictures_are_distinguished_from_paths() {
        let webp = STANDARD.encode(b"RIFF\x10\0\0\0WEBPVP8 ");
        for (text, data) in [
            ("data:image/png;base64,iVBORw0KGgo=", "iVBORw0KGgo="),
            ("data:image/odd;base64,AAAA", "AAAA"),
            ("iVBORw0KGgo=", "iVBORw0KGgo="),
            ("/9j/4AAQSkZJRg==", "/9j/4AAQSkZJRg=="),
            ("iVBO\nRw0=\n", "iVBO\nRw0="),
            (&webp, &webp),
        ] {
            assert_eq!(Picture::of(text), Picture::Base64(data), "{text}");
        }
        for path in ["photo.jpg", "./a/b.png", "/home/me/photo", "my photos/a", "x_y/abc", "a==="] {
            assert_eq!(Picture::of(path), Picture::Path(path), "{path}");
        }
        for text in ["img/photos01", "abcd", "abcdefgh", "img/data/cat12345678", "/srv/img"] {
            assert_eq!(Picture::of(text), Picture::Either(text), "{text}");
        }
    }
}
