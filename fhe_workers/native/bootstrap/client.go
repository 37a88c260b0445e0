package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tuneinsight/lattigo/v6/core/rlwe"
	"github.com/tuneinsight/lattigo/v6/schemes/ckks"
)

// The client's side: what a user of the set does on their own machine. The secret key is written
// to one file and to nothing else.

// keygen writes the secret key and every part of the evaluation key into a folder.
func keygen(of *set, folder string) error {
	parts := filepath.Join(folder, "parts")
	if err := os.MkdirAll(parts, 0o700); err != nil {
		return err
	}
	secret := rlwe.NewKeyGenerator(of.residual).GenSecretKeyNew()
	encoded, err := secret.MarshalBinary()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "secret"), encoded, 0o600); err != nil {
		return err
	}
	put := func(name string, data []byte, err error) error {
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(parts, name), data, 0o644)
	}
	chain := of.chain()
	lifted, generator := lift(chain, secret), rlwe.NewKeyGenerator(chain)
	data, err := generator.GenRelinearizationKeyNew(lifted, compressed).MarshalBinary()
	if err := put("rlk", data, err); err != nil {
		return err
	}
	for _, element := range of.galoisElements() {
		data, err := generator.GenGaloisKeyNew(element, lifted, compressed).MarshalBinary()
		if err := put(fmt.Sprintf("gal%d", element), data, err); err != nil {
			return err
		}
	}
	low, err := of.encapsulated()
	if err != nil {
		return err
	}
	lowest := rlwe.NewKeyGenerator(low)
	sparse := lowest.GenSecretKeyWithHammingWeightNew(of.boot.EphemeralSecretWeight)
	data, err = lowest.GenEvaluationKeyNew(lifted, sparse).MarshalBinary()
	if err := put("d2s", data, err); err != nil {
		return err
	}
	data, err = generator.GenEvaluationKeyNew(sparse, lifted, compressed).MarshalBinary()
	return put("s2d", data, err)
}

// lift is the residual secret in the chain of bootstrapping, which has more primes.
func lift(chain ckks.Parameters, secret *rlwe.SecretKey) *rlwe.SecretKey {
	ringQ, lifted := chain.RingQ(), rlwe.NewSecretKey(chain)
	buffer := ringQ.NewPoly()
	rlwe.ExtendBasisSmallNormAndCenterNTTMontgomery(ringQ, ringQ, secret.Value.Q, buffer, lifted.Value.Q)
	rlwe.ExtendBasisSmallNormAndCenterNTTMontgomery(ringQ, chain.RingP(), secret.Value.Q, buffer, lifted.Value.P)
	return lifted
}

// encrypt reads values as a JSON list and writes a ciphertext with `left` multiplications left.
func encrypt(of *set, folder string, left int) error {
	secret, err := secretIn(of, folder)
	if err != nil {
		return err
	}
	values := []float64{}
	if err := json.NewDecoder(os.Stdin).Decode(&values); err != nil {
		return err
	}
	if len(values) > 1<<of.logSlots || left < 0 || left > topLevel {
		return errors.New("too many values, or no such level")
	}
	values = append(values, make([]float64, 1<<of.logSlots-len(values))...)
	message := ckks.NewPlaintext(of.residual, left)
	message.LogDimensions.Cols = of.logSlots
	if err := ckks.NewEncoder(of.residual).Encode(values, message); err != nil {
		return err
	}
	ciphertext, err := rlwe.NewEncryptor(of.residual, secret).EncryptNew(message)
	if err != nil {
		return err
	}
	data, err := ciphertext.MarshalBinary()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(data)
	return err
}

// decrypt reads a ciphertext and writes its values as a JSON list.
func decrypt(of *set, folder string, data []byte) error {
	secret, err := secretIn(of, folder)
	if err != nil {
		return err
	}
	ciphertext := new(rlwe.Ciphertext)
	if err := ciphertext.UnmarshalBinary(data); err != nil {
		return err
	}
	values := make([]float64, 1<<of.logSlots)
	message := rlwe.NewDecryptor(of.residual, secret).DecryptNew(ciphertext)
	if err := ckks.NewEncoder(of.residual).Decode(message, values); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(values)
}

func secretIn(of *set, folder string) (*rlwe.SecretKey, error) {
	data, err := os.ReadFile(filepath.Join(folder, "secret"))
	if err != nil {
		return nil, err
	}
	secret := rlwe.NewSecretKey(of.residual)
	return secret, secret.UnmarshalBinary(data)
}
