//! The query form of label selectors. A token list and a recursive descent over it, as upstream's parser.

use super::{Operator, ParseError, Requirement};
use crate::{field, names};

/// Reads a selector; its requirements in the order of the text.
pub(super) fn selector(text: &str) -> Result<Vec<Requirement>, ParseError> {
    Parser::new(text).selector()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'static str),
    End,
}

impl Token<'_> {
    fn text(&self) -> &str {
        match self {
            Token::Word(text) => text,
            Token::Symbol(text) => text,
            Token::End => "",
        }
    }
}

/// `in` and `notin` are words to the lexer; where an operator is due they are operators.
struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", ">", "<", "(", ")", ","];
        let mut tokens = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            if rest.is_empty() || rest.starts_with('\0') {
                break;
            }
            if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
                tokens.push(Token::Symbol(symbol));
                rest = &rest[symbol.len()..];
            } else {
                let end = rest.find(|c| " \t\r\n=!(),><\0".contains(c)).unwrap_or(rest.len());
                tokens.push(Token::Word(&rest[..end]));
                rest = &rest[end..];
            }
        }
        tokens.push(Token::End);
        Self { tokens, at: 0 }
    }

    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn found<T>(token: Token<'_>, expected: &str) -> Result<T, ParseError> {
        Err(ParseError(format!("found '{}', expected: {expected}", token.text())))
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, ParseError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Symbol("!") => {
                    let requirement = self.requirement();
                    requirements.push(
                        requirement.map_err(|error| ParseError(format!("unable to parse requirement: {error}")))?,
                    );
                    match self.next() {
                        Token::End => return Ok(requirements),
                        Token::Symbol(",") => {
                            let after = self.peek();
                            if !matches!(after, Token::Word(_) | Token::Symbol("!")) {
                                return Self::found(after, "identifier after ','");
                            }
                        }
                        other => return Self::found(other, "',' or 'end of string'"),
                    }
                }
                Token::End => return Ok(requirements),
                other => return Self::found(other, "!, identifier, or 'end of string'"),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, ParseError> {
        let mut token = self.next();
        let negated = token == Token::Symbol("!");
        if negated {
            token = self.next();
        }
        let Token::Word(key) = token else {
            return Self::found(token, "identifier");
        };
        let reasons = names::qualified_name(key);
        if !reasons.is_empty() {
            // Upstream prints the path it does not have.
            let error = field::Error::invalid(&field::Path::new("<nil>"), key, reasons.join("; "));
            return Err(ParseError(error.to_string()));
        }
        if negated {
            return Requirement::new(key.to_owned(), Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Requirement::new(key.to_owned(), Operator::Exists, Vec::new());
        }
        let operator = match self.next() {
            Token::Word("in") => Operator::In,
            Token::Word("notin") => Operator::NotIn,
            Token::Symbol("=") => Operator::Equals,
            Token::Symbol("==") => Operator::DoubleEquals,
            Token::Symbol("!=") => Operator::NotEquals,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            other => return Self::found(other, "in, notin, =, ==, !=, gt, lt"),
        };
        let mut values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.value()?],
        };
        values.sort();
        values.dedup();
        Requirement::new(key.to_owned(), operator, values)
    }

    fn value(&mut self) -> Result<String, ParseError> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Word(text) => {
                self.next();
                Ok(text.to_owned())
            }
            other => Self::found(other, "identifier"),
        }
    }

    /// `(a,b)`; a missing item is the empty value: `(,a)`, `()`.
    fn values(&mut self) -> Result<Vec<String>, ParseError> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return Err(ParseError(format!("found '{}' expected: '('", open.text())));
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(text) => {
                    values.push(text.to_owned());
                    match self.next() {
                        Token::Symbol(",") => {}
                        Token::Symbol(")") => return Ok(values),
                        other => return Self::found(other, "',' or ')'"),
                    }
                    if self.peek() == Token::Symbol(")") {
                        self.next();
                        values.push(String::new());
                        return Ok(values);
                    }
                }
                Token::Symbol(",") => {
                    values.push(String::new());
                    if self.peek() == Token::Symbol(")") {
                        self.next();
                        return Ok(values);
                    }
                }
                Token::Symbol(")") if values.is_empty() => return Ok(vec![String::new()]),
                other => return Self::found(other, "',', or identifier"),
            }
        }
    }
}
