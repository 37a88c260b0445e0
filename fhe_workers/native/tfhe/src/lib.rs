//! Boolean gates of tfhe-rs for Python, on serialised keys and ciphertexts.
//!
//! `Client` is the side that holds the secret, `Server` the side that computes. The caller has
//! checked lengths and structure (schemas/fhe/tfhe.py); here every deserialisation is bounded by
//! the length that the parameter set demands, dimensions are compared with the set's, and a panic
//! of the library is an error like any other. The GIL is released wherever there is work.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bincode::Options;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::{Serialize, de::DeserializeOwned};
use tfhe::boolean::parameters::{BooleanParameters, DEFAULT_PARAMETERS};
use tfhe::boolean::prelude::*;
use tfhe::boolean::server_key::CompressedServerKey;

/// Far more than any ciphertext has, and than a client's secret key has.
const CIPHERTEXT_BYTES_MAX: u64 = 1 << 14;
const SECRET_BYTES_MAX: u64 = 1 << 20;
/// What a fresh ciphertext has: a body and the seed of its mask.
const FRESH_BYTES: usize = 80;

fn codec(limit: u64) -> impl Options {
    bincode::options()
        .with_fixint_encoding()
        .with_limit(limit)
        .reject_trailing_bytes()
}

fn read<T: DeserializeOwned>(data: &[u8], limit: u64) -> Result<T, String> {
    codec(limit).deserialize(data).map_err(|error| error.to_string())
}

fn written<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    codec(u64::MAX).serialize(value).map_err(|error| error.to_string())
}

/// Do `work` without the GIL; what goes wrong in it, panics included, is a ValueError.
fn detached<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> PyResult<T> {
    py.detach(|| catch_unwind(AssertUnwindSafe(work)))
        .unwrap_or_else(|_| Err("the library gave up on these bytes".into()))
        .map_err(PyValueError::new_err)
}

fn parameters(params_id: &str) -> PyResult<BooleanParameters> {
    match params_id {
        "tfhe-132" => Ok(DEFAULT_PARAMETERS),
        _ => Err(PyValueError::new_err(format!("no parameter set {params_id}"))),
    }
}

/// A ciphertext that hides its value, of the dimension of the set.
fn ciphertext(data: &[u8], params: &BooleanParameters) -> Result<Ciphertext, String> {
    let found = if data.len() == FRESH_BYTES {
        read::<CompressedCiphertext>(data, CIPHERTEXT_BYTES_MAX)?.decompress()
    } else {
        read::<Ciphertext>(data, CIPHERTEXT_BYTES_MAX)?
    };
    match &found {
        Ciphertext::Encrypted(lwe) if lwe.lwe_size().0 == params.lwe_dimension.0 + 1 => Ok(found),
        Ciphertext::Encrypted(_) => Err("the ciphertext has another dimension".into()),
        Ciphertext::Trivial(_) => Err("the ciphertext does not hide its value".into()),
    }
}

/// The side that holds the secret: makes keys, encrypts bits, decrypts them.
#[pyclass(frozen)]
struct Client {
    key: ClientKey,
    params: BooleanParameters,
}

#[pymethods]
impl Client {
    /// New keys of the parameter set, or those of `secret` (see `secret`).
    #[new]
    #[pyo3(signature = (params_id, secret = None))]
    fn new(py: Python<'_>, params_id: &str, secret: Option<&[u8]>) -> PyResult<Self> {
        let params = parameters(params_id)?;
        let key = detached(py, || match secret {
            None => Ok(ClientKey::new(&params)),
            Some(data) => read(data, SECRET_BYTES_MAX),
        })?;
        Ok(Self { key, params })
    }

    /// The secret key: whoever has it can read everything.
    fn secret<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let data = detached(py, || written(&self.key))?;
        Ok(PyBytes::new(py, &data))
    }

    /// The evaluation key, compressed: what the server gets.
    fn server_key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let data = detached(py, || written(&CompressedServerKey::new(&self.key)))?;
        Ok(PyBytes::new(py, &data))
    }

    /// One fresh ciphertext for each bit, one after another.
    fn encrypt<'py>(&self, py: Python<'py>, bits: Vec<bool>) -> PyResult<Bound<'py, PyBytes>> {
        let data = detached(py, || {
            let each = bits.iter().map(|bit| written(&self.key.encrypt_compressed(*bit)));
            Ok(each.collect::<Result<Vec<_>, _>>()?.concat())
        })?;
        Ok(PyBytes::new(py, &data))
    }

    /// The bit in one ciphertext.
    fn decrypt(&self, py: Python<'_>, data: &[u8]) -> PyResult<bool> {
        detached(py, || Ok(self.key.decrypt(&ciphertext(data, &self.params)?)))
    }
}

/// The side that computes: an evaluation key, expanded.
#[pyclass(frozen)]
struct Server {
    key: ServerKey,
    params: BooleanParameters,
}

#[pymethods]
impl Server {
    /// `key` as `Client.server_key` writes it. ValueError when it is not one of the set.
    #[new]
    fn new(py: Python<'_>, params_id: &str, key: &[u8]) -> PyResult<Self> {
        let params = parameters(params_id)?;
        let key = detached(py, || {
            let compressed: CompressedServerKey = read(key, key.len() as u64)?;
            let (bootstrap, switch, order) = compressed.into_raw_parts();
            let matches = bootstrap.input_lwe_dimension() == params.lwe_dimension
                && bootstrap.polynomial_size() == params.polynomial_size
                && bootstrap.glwe_size() == params.glwe_dimension.to_glwe_size()
                && bootstrap.decomposition_level_count() == params.pbs_level
                && bootstrap.decomposition_base_log() == params.pbs_base_log
                && switch.decomposition_level_count() == params.ks_level
                && switch.decomposition_base_log() == params.ks_base_log
                && switch.output_key_lwe_dimension() == params.lwe_dimension
                && order == params.encryption_key_choice.into();
            if !matches {
                return Err("the key does not belong to the parameter set".into());
            }
            Ok(CompressedServerKey::from_raw_parts(bootstrap, switch, order).decompress())
        })?;
        Ok(Self { key, params })
    }

    /// One gate on one bit each: `a` and `b`; `c` is MUX's third, `a` choosing `b` over `c`.
    ///
    /// Takes fresh and computed ciphertexts, gives a computed one. ValueError for what is none.
    #[pyo3(signature = (gate, a, b = None, c = None))]
    fn gate<'py>(
        &self,
        py: Python<'py>,
        gate: &str,
        a: &[u8],
        b: Option<&[u8]>,
        c: Option<&[u8]>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let data = detached(py, || {
            let given = [Some(a), b, c].into_iter().flatten();
            let bits = given
                .map(|data| ciphertext(data, &self.params))
                .collect::<Result<Vec<_>, _>>()?;
            let key = &self.key;
            let out = match (gate, bits.as_slice()) {
                ("and", [a, b]) => key.and(a, b),
                ("mux", [a, b, c]) => key.mux(a, b, c),
                ("nand", [a, b]) => key.nand(a, b),
                ("not", [a]) => key.not(a),
                ("or", [a, b]) => key.or(a, b),
                ("xor", [a, b]) => key.xor(a, b),
                _ => return Err(format!("no gate {gate} of {} bits", bits.len())),
            };
            written(&out)
        })?;
        Ok(PyBytes::new(py, &data))
    }
}

#[pymodule]
fn weir_tfhe(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Client>()?;
    module.add_class::<Server>()
}
