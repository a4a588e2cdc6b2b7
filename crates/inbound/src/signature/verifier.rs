//! Verification of one delivery while its body arrives, so that the body need not be stored first.
//!
//! Checks that need only the head run before the body: tokens, missing headers, signatures that cannot match, stale times.
//! Signatures of the body are computed piece by piece, including asymmetric ones. Checks of data in the body are left to a
//! [`BodyCheck`] of the whole body.

use ed25519_dalek::StreamVerifier;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::mac::{self, Mac};
use super::{Algorithm, Graph, Key, Mailgun, Refusal, Sns, Twilio, decide, hmac};
use crate::Request;

/// Verification in progress: pass the body to [`Verifier::update`], then call [`Verifier::finish`].
#[must_use = "nothing is proven until the verifier has finished"]
pub struct Verifier<'a> {
    running: RunningMac,
    /// Signed text after the body.
    after: Vec<&'a [u8]>,
    rest: BodyCheck<'a>,
}

impl std::fmt::Debug for Verifier<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(..)")
    }
}

/// Computation over the body.
enum RunningMac {
    /// Nothing: the head is sufficient.
    Nothing,
    /// Signatures, one of which must match.
    Signatures { macs: Vec<Mac>, presented: Vec<Vec<u8>>, streams: Vec<StreamVerifier> },
    /// A hash and its expected value.
    Hash(Sha256, Vec<u8>),
}

/// Check of the complete body.
#[derive(Clone, Copy, Debug)]
pub(super) enum InBody<'a> {
    /// Airtable's time.
    Time,
    /// Topic and confirmation URL of Amazon SNS.
    Sns(&'a Sns),
    /// The sorted fields of a form, which Twilio signs.
    Twilio(&'a Twilio),
    /// Mailgun's signature.
    Mailgun(&'a Mailgun),
    /// The client states of Microsoft Graph.
    Graph(&'a Graph),
}

/// Remaining check of the complete body.
#[derive(Clone, Copy, Debug)]
#[must_use = "the contents of the body are not checked yet"]
pub struct BodyCheck<'a> {
    head: Request<'a>,
    tolerance: u64,
    check: Option<InBody<'a>>,
}

impl BodyCheck<'_> {
    /// Checks `body`, for schemes with a proof in the body.
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
    /// Creates a verifier that computes nothing over the body, because the checked head is sufficient.
    pub(super) fn head_only(head: &Request<'a>) -> Verifier<'a> {
        let rest = BodyCheck { head: Request { body: &[], ..*head }, tolerance: 0, check: None };
        Verifier { running: RunningMac::Nothing, after: Vec::new(), rest }
    }

    /// Creates a verifier of signatures over a body: HMACs of `keys` that begin with the text fed by `before`, and `streams`.
    ///
    /// # Errors
    /// [`Refusal::Signature`] if no signature can match any body.
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

    /// Creates a verifier of a body with an expected SHA-256.
    pub(super) fn hash(head: &Request<'a>, expected: Vec<u8>) -> Verifier<'a> {
        Verifier { running: RunningMac::Hash(Sha256::new(), expected), ..Verifier::head_only(head) }
    }

    /// Adds `pieces`, which are signed after the body.
    pub(super) fn followed_by(self, pieces: Vec<&'a [u8]>) -> Verifier<'a> {
        Verifier { after: pieces, ..self }
    }

    /// Adds a check of the complete body.
    pub(super) fn then(mut self, check: InBody<'a>, tolerance: u64) -> Verifier<'a> {
        (self.rest.check, self.rest.tolerance) = (Some(check), tolerance);
        self
    }

    /// Processes the next piece of the body.
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

    /// Decides after the whole body was processed. All candidates are compared, without stopping at a match.
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
