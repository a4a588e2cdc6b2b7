//! The check of one delivery while its body arrives, so that a body need not be kept to be checked.
//!
//! What the head alone decides is decided before the body: tokens, missing headers, signatures that cannot fit, times that are too
//! far off. Signatures of the body are computed piece by piece, those with private keys too. What stands in the body itself is left
//! to a [`BodyCheck`] of the whole body.

use ed25519_dalek::StreamVerifier;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::mac::{self, Mac};
use super::{Algorithm, Graph, Key, Mailgun, Refusal, Sns, Twilio, decide, hmac};
use crate::Request;

/// A delivery that is being checked: feed it the body with [`Verifier::update`], then ask [`Verifier::finish`].
#[must_use = "nothing is proven until the verifier has finished"]
pub struct Verifier<'a> {
    running: RunningMac,
    /// What is signed after the body.
    after: Vec<&'a [u8]>,
    rest: BodyCheck<'a>,
}

impl std::fmt::Debug for Verifier<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(..)")
    }
}

/// What is computed over the body.
enum RunningMac {
    /// Nothing: the head proves all that there is to prove.
    Nothing,
    /// Signatures, one of which must fit.
    Signatures { macs: Vec<Mac>, presented: Vec<Vec<u8>>, streams: Vec<StreamVerifier> },
    /// A hash that must be this one.
    Hash(Sha256, Vec<u8>),
}

/// Something in the body that is checked once all of it is there.
#[derive(Clone, Copy, Debug)]
pub(super) enum InBody<'a> {
    /// Airtable's time.
    Time,
    /// The topic and the address of Amazon SNS.
    Sns(&'a Sns),
    /// The sorted fields of a form, which Twilio signs.
    Twilio(&'a Twilio),
    /// Mailgun's signature.
    Mailgun(&'a Mailgun),
    /// The client states of Microsoft Graph.
    Graph(&'a Graph),
}

/// What is left to be checked in the whole body.
#[derive(Clone, Copy, Debug)]
#[must_use = "what stands in the body is not checked yet"]
pub struct BodyCheck<'a> {
    head: Request<'a>,
    tolerance: u64,
    check: Option<InBody<'a>>,
}

impl BodyCheck<'_> {
    /// Checks what stands in `body`, for schemes that have something there.
    ///
    /// # Errors
    /// The reason, for the log.
    pub fn check(&self, body: &[u8]) -> Result<(), Refusal> {
        let request = Request { body, ..self.head };
        match self.check {
            None => Ok(()),
            Some(InBody::Time) => hmac::fresh_body(&request, self.tolerance),
            Some(InBody::Sns(sns)) => sns.verify_body(&request),
            Some(InBody::Twilio(twilio)) => twilio.verify_form(&request),
            Some(InBody::Mailgun(mailgun)) => mailgun.verify(&request, self.tolerance),
            Some(InBody::Graph(graph)) => graph.verify(&request),
        }
    }
}

impl<'a> Verifier<'a> {
    /// A verifier of a delivery that computes nothing over the body: the head, which was checked, proves what it can.
    pub(super) fn head_only(head: &Request<'a>) -> Verifier<'a> {
        let rest = BodyCheck { head: Request { body: &[], ..*head }, tolerance: 0, check: None };
        Verifier { running: RunningMac::Nothing, after: Vec::new(), rest }
    }

    /// A verifier of signatures over a body: those of `keys` that begin with what `before` feeds, and `streams`.
    ///
    /// # Errors
    /// [`Refusal::Signature`] if none of them can fit, whatever the body is.
    pub(super) fn signatures(
        head: &Request<'a>,
        (keys, algorithm): (&[Key], Algorithm),
        mut presented: Vec<Vec<u8>>,
        streams: Vec<StreamVerifier>,
        before: impl Fn(Mac) -> Mac,
    ) -> Result<Verifier<'a>, Refusal> {
        presented.retain(|signature| signature.len() == algorithm.length());
        let macs: Vec<Mac> = match presented.is_empty() {
            true => Vec::new(),
            false => keys.iter().filter_map(|key| Mac::new(key, algorithm)).map(before).collect(),
        };
        if macs.is_empty() && streams.is_empty() {
            return Err(Refusal::Signature);
        }
        Ok(Verifier { running: RunningMac::Signatures { macs, presented, streams }, ..Verifier::head_only(head) })
    }

    /// A verifier of a body that must have this SHA-256.
    pub(super) fn hash(head: &Request<'a>, expected: Vec<u8>) -> Verifier<'a> {
        Verifier { running: RunningMac::Hash(Sha256::new(), expected), ..Verifier::head_only(head) }
    }

    /// The same for a message that goes on with `pieces` after the body.
    pub(super) fn followed_by(self, pieces: Vec<&'a [u8]>) -> Verifier<'a> {
        Verifier { after: pieces, ..self }
    }

    /// The same with something in the body that is to be checked when all of it is there.
    pub(super) fn then(mut self, check: InBody<'a>, tolerance: u64) -> Verifier<'a> {
        (self.rest.check, self.rest.tolerance) = (Some(check), tolerance);
        self
    }

    /// Takes the next piece of the body.
    pub fn update(&mut self, piece: &[u8]) {
        match &mut self.running {
            RunningMac::Nothing => {}
            RunningMac::Signatures { macs, streams, .. } => {
                macs.iter_mut().for_each(|mac| mac.update(piece));
                streams.iter_mut().for_each(|stream| stream.update(piece));
            }
            RunningMac::Hash(hash, _) => hash.update(piece),
        }
    }

    /// Decides once the whole body was fed. Everything is compared, whichever fits.
    ///
    /// # Errors
    /// The reason, for the log.
    pub fn finish(mut self) -> Result<BodyCheck<'a>, Refusal> {
        for piece in std::mem::take(&mut self.after) {
            self.update(piece);
        }
        let known = match self.running {
            RunningMac::Nothing => Choice::from(1),
            RunningMac::Signatures { macs, presented, streams } => {
                let signed = streams.into_iter().fold(Choice::from(0), |known, stream| {
                    known | Choice::from(u8::from(stream.finalize_and_verify().is_ok()))
                });
                signed | mac::any(macs, &presented)
            }
            RunningMac::Hash(hash, expected) => hash.finalize().as_slice().ct_eq(&expected),
        };
        decide(known).map(|()| self.rest)
    }
}
