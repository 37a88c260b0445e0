package main

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"strconv"

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
		begin, err := c.checkHead(data, level)
		if err != nil {
			return nil, err
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

// checkHead says whether a ciphertext begins as one of the set, and where its body begins. The
// description that leads it is the same for all but for the scale; the library's parser of it
// follows a null pointer when a field is missing.
func (c *ciphertexts) checkHead(data []byte, level int) (int, error) {
	expected, err := blank(c.set, level).MetaData.MarshalBinary()
	if err != nil {
		return 0, err
	}
	place := scaleText.FindIndex(expected)
	begin := 1 + len(expected)
	head := data[1:begin]
	same := data[0] == 1 &&
		bytes.Equal(head[:place[0]], expected[:place[0]]) && bytes.Equal(head[place[1]:], expected[place[1]:])
	text := head[place[0]:place[1]]
	if !same || len(scaleText.Find(text)) != len(text) {
		return 0, refuse("ciphertext_invalid", "the ciphertext is not one of 16 values of this set")
	}
	scale, err := strconv.ParseFloat(string(text), 64)
	if wanted := c.set.residual.DefaultScale().Float64(); err != nil || !(math.Abs(scale/wanted-1) <= scaleTolerance) {
		return 0, refuse("ciphertext_invalid", fmt.Sprintf("the scale is %g, not about %g", scale, wanted))
	}
	return begin, nil
}

// scaleText is how the library writes a scale.
var scaleText = regexp.MustCompile(`[1-9]\.[0-9]{39}e\+[0-9]{2}`)

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
