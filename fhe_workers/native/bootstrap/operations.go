package main

import (
	"encoding/binary"
	"math"

	"github.com/tuneinsight/lattigo/v6/core/rlwe"
	"github.com/tuneinsight/lattigo/v6/schemes/ckks"
)

const (
	cipher = "cipher"
	plain  = "plain"
)

// Scales that differ by no more are one scale; the difference is a relative error of the result.
const sameScale = 1e-9

func (s *server) compute(key *bundle, asked request, blobs [][]byte) (*rlwe.Ciphertext, error) {
	unsupported := refuse("unsupported_operation", "no such operation over these operands")
	if len(blobs) != len(asked.Kinds) || len(blobs) == 0 || asked.Kinds[0] != cipher {
		return nil, unsupported
	}
	left, err := s.ciphertexts.read(blobs[0])
	if err != nil {
		return nil, err
	}
	if asked.Do == "bootstrap" && len(blobs) == 1 {
		return s.refreshed(key, left)
	}
	if len(blobs) != 2 {
		return nil, unsupported
	}
	evaluator := ckks.NewEvaluator(s.set.chain(), key.keys)
	switch asked.Do + " " + asked.Kinds[1] {
	case "add " + cipher, "multiply " + cipher:
		right, err := s.ciphertexts.read(blobs[1])
		if err != nil {
			return nil, err
		}
		if asked.Do == "add" {
			return add(evaluator, left, right)
		}
		return rescaled(evaluator, left, right)
	case "add " + plain, "multiply " + plain:
		values, err := s.values(blobs[1])
		if err != nil {
			return nil, err
		}
		if asked.Do == "add" {
			return evaluator.AddNew(left, values)
		}
		return rescaled(evaluator, left, values)
	}
	return nil, unsupported
}

// refreshed is a bootstrapped ciphertext. The library's circuit is right for the nominal scale alone:
// at another one its error is the difference, some thousand times over. So the scale is called
// nominal, which makes the values larger or smaller by the difference, and is put back afterwards.
func (s *server) refreshed(key *bundle, given *rlwe.Ciphertext) (*rlwe.Ciphertext, error) {
	nominal := s.set.residual.DefaultScale()
	drift := given.Scale.Div(nominal)
	given.Scale = nominal
	result, err := key.ready.Bootstrap(given)
	if err == nil {
		result.Scale = result.Scale.Mul(drift)
	}
	return result, err
}

// rescaled is left * right at the lower of their levels, relinearised, one level below. Values in the
// clear are encoded at the scale of the prime that is dropped, so that left's scale stays.
func rescaled(evaluator *ckks.Evaluator, left *rlwe.Ciphertext, right rlwe.Operand) (*rlwe.Ciphertext, error) {
	level := left.Level()
	if other, is := right.(*rlwe.Ciphertext); is {
		level = min(level, other.Level())
	}
	if level == 0 {
		return nil, refuse("level_exhausted", "no multiplication is left: bootstrap first")
	}
	product, err := evaluator.MulRelinNew(left, right)
	if err != nil {
		return nil, err
	}
	return product, evaluator.Rescale(product, product)
}

// add brings the upper operand down to the level and exactly the scale of the lower by a
// multiplication with one; at the same level and different scales, nothing exact can be done.
func add(evaluator *ckks.Evaluator, left, right *rlwe.Ciphertext) (*rlwe.Ciphertext, error) {
	upper, lower := left, right
	if upper.Level() < lower.Level() {
		upper, lower = lower, upper
	}
	ratio := lower.Scale.Float64() / upper.Scale.Float64()
	if upper.Level() > lower.Level() {
		evaluator.DropLevel(upper, upper.Level()-lower.Level()-1)
		prime := float64(evaluator.GetParameters().Q()[upper.Level()])
		ones := ckks.NewPlaintext(*evaluator.GetParameters(), upper.Level())
		ones.Scale, ones.LogDimensions = rlwe.NewScale(ratio*prime), upper.LogDimensions
		filled := make([]float64, upper.Slots())
		for index := range filled {
			filled[index] = 1
		}
		if err := ckks.NewEncoder(*evaluator.GetParameters()).Encode(filled, ones); err != nil {
			return nil, err
		}
		lowered, err := rescaled(evaluator, upper, ones)
		if err != nil {
			return nil, err
		}
		lowered.Scale = lower.Scale
		return evaluator.AddNew(lowered, lower)
	}
	if math.Abs(ratio-1) > sameScale {
		return nil, refuse("scale_mismatch", "the operands have different scales")
	}
	lower.Scale = upper.Scale
	return evaluator.AddNew(upper, lower)
}

// values in the clear, as little-endian doubles; missing ones count as 0.
func (s *server) values(data []byte) ([]float64, error) {
	slots := 1 << s.set.logSlots
	if len(data)%8 != 0 || len(data) > 8*slots {
		return nil, refuse("plaintext_invalid", "the plaintext has no more than 16 values")
	}
	values := make([]float64, slots)
	for index := range len(data) / 8 {
		values[index] = math.Float64frombits(binary.LittleEndian.Uint64(data[8*index:]))
		// Also catches what is not a number.
		if !(math.Abs(values[index]) <= valueMax) {
			return nil, refuse("plaintext_invalid", "a plaintext value is too large or not a number")
		}
	}
	return values, nil
}

// valueMax is the API's bound of a value in the clear; what a level can hold the decider knows.
const valueMax = 1 << 18
