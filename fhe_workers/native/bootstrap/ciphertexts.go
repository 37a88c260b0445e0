package main

import (
	"bytes"
	"fmt"
	"math"

	"github.com/tuneinsight/lattigo/v6/core/rlwe"
	"github.com/tuneinsight/lattigo/v6/ring"
	"github.com/tuneinsight/lattigo/v6/schemes/ckks"
)

// Scales drift from the nominal one by as much as 31-bit primes differ from 2^31.
const scaleTolerance = 1e-2

// ciphertexts reads and writes those of one set.
type ciphertexts struct {
	set    *set
	shapes []*shape // by level
}

func newCiphertexts(of *set) (*ciphertexts, error) {
	made := &ciphertexts{set: of}
	for level := 0; level <= topLevel; level++ {
		dummy := blank(of, level)
		paint := func(value func(uint64) uint64) {
			for _, part := range dummy.Value {
				paintRows(part, of.residual.Q(), value)
			}
		}
		found, err := shapeOf(dummy, paint)
		if err != nil {
			return nil, err
		}
		made.shapes = append(made.shapes, found)
	}
	return made, nil
}

// blank is a ciphertext of the set with nothing in it.
func blank(of *set, level int) *rlwe.Ciphertext {
	made := ckks.NewCiphertext(of.residual, 1, level)
	made.IsNTT, made.IsBatched = true, true
	made.LogDimensions = ring.Dimensions{Rows: 0, Cols: of.logSlots}
	return made
}

// read is the ciphertext in these bytes; refuses all but the honest.
func (c *ciphertexts) read(data []byte) (*rlwe.Ciphertext, error) {
	for level, shape := range c.shapes {
		if len(data) != len(shape.template) {
			continue
		}
		// One byte says that the description follows, which differs in the scale.
		begin := 1 + blank(c.set, level).MetaData.BinarySize()
		described := new(rlwe.MetaData)
		if data[0] != 1 || described.UnmarshalBinary(data[1:begin]) != nil {
			return nil, refuse("ciphertext_invalid", "the ciphertext has no description of ours")
		}
		again, err := described.MarshalBinary()
		if err != nil || !bytes.Equal(again, data[1:begin]) {
			return nil, refuse("ciphertext_invalid", "the description of the ciphertext is not canonical")
		}
		scale, wanted := described.Scale.Float64(), c.set.residual.DefaultScale().Float64()
		if !(math.Abs(scale/wanted-1) <= scaleTolerance) {
			return nil, refuse("ciphertext_invalid", fmt.Sprintf("the scale is %g, not about %g", scale, wanted))
		}
		expected := blank(c.set, level).MetaData
		expected.Scale = described.Scale
		if !expected.Equal(described) {
			return nil, refuse("ciphertext_invalid", "the ciphertext is not one of 16 values of this set")
		}
		if shape.check(data, begin) != nil {
			return nil, refuse("ciphertext_invalid", "the ciphertext has not the form of this set")
		}
		found := new(rlwe.Ciphertext)
		if err := found.UnmarshalBinary(data); err != nil {
			return nil, refuse("ciphertext_invalid", "the ciphertext cannot be read")
		}
		if isZero(found.Value[1]) {
			return nil, refuse("transparent_result", "the ciphertext does not hide its value")
		}
		return found, nil
	}
	return nil, refuse("ciphertext_invalid", "no ciphertext of this set has this length")
}

// write is the bytes of a result, lowered until the API can carry it.
func (c *ciphertexts) write(result *rlwe.Ciphertext) ([]byte, error) {
	if isZero(result.Value[1]) {
		return nil, refuse("transparent_result", "the result would not hide its value")
	}
	if above := result.Level() - topLevel; above > 0 {
		ckks.NewEvaluator(c.set.residual, nil).DropLevel(result, above)
	}
	return result.MarshalBinary()
}

func isZero(part ring.Poly) bool {
	for _, row := range part.Coeffs {
		for _, coefficient := range row {
			if coefficient != 0 {
				return false
			}
		}
	}
	return true
}
