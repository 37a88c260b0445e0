package main

import (
	"encoding"
	"encoding/binary"
	"errors"
	"math"

	"github.com/tuneinsight/lattigo/v6/core/rlwe"
	"github.com/tuneinsight/lattigo/v6/ring"
)

// A shape is how a serialised object of one kind must look: every byte that is no coefficient as in
// an object made here, and every coefficient below its prime. The library's own parser overflows
// its stack or asks for all memory when such bytes are wrong, and neither can be recovered from; so
// it only sees what has this shape.
type shape struct {
	template []byte // the object with all coefficients zero
	runs     []stretch
}

// A stretch is a run of 64-bit words that may be anything up to `most`.
type stretch struct {
	begin, end int
	most       uint64
}

var errShape = errors.New("the bytes have not the form of this set")

// shapeOf learns the shape from an object; paint sets all its free words to a value that it is told
// for each prime, or for what is no coefficient (prime 0).
func shapeOf(object encoding.BinaryMarshaler, paint func(value func(prime uint64) uint64)) (*shape, error) {
	paint(func(uint64) uint64 { return 0 })
	template, err := object.MarshalBinary()
	if err != nil {
		return nil, err
	}
	paint(func(uint64) uint64 { return math.MaxUint64 })
	full, err := object.MarshalBinary()
	if err != nil {
		return nil, err
	}
	paint(func(prime uint64) uint64 { return prime - 1 })
	most, err := object.MarshalBinary()
	if err != nil {
		return nil, err
	}
	if len(full) != len(template) || len(most) != len(template) {
		return nil, errors.New("the length of the object depends on its coefficients")
	}
	made := &shape{template: template}
	for at := 0; at < len(template); {
		if template[at] == full[at] {
			at++
			continue
		}
		bound := binary.LittleEndian.Uint64(most[at:])
		if last := len(made.runs) - 1; last >= 0 && made.runs[last].end == at && made.runs[last].most == bound {
			made.runs[last].end += 8
		} else {
			made.runs = append(made.runs, stretch{at, at + 8, bound})
		}
		at += 8
	}
	return made, nil
}

// check says whether data has the shape, from the byte `from` on.
func (s *shape) check(data []byte, from int) error {
	if len(data) != len(s.template) {
		return errShape
	}
	at := from
	for _, run := range append(s.runs, stretch{begin: len(data), end: len(data)}) {
		if string(data[at:run.begin]) != string(s.template[at:run.begin]) {
			return errShape
		}
		for at = run.begin; at < run.end; at += 8 {
			if binary.LittleEndian.Uint64(data[at:]) > run.most {
				return errShape
			}
		}
	}
	return nil
}

// paintRows sets the coefficients of a polynomial whose rows belong to these primes.
func paintRows(poly ring.Poly, primes []uint64, value func(uint64) uint64) {
	for row, coefficients := range poly.Coeffs {
		for column := range coefficients {
			coefficients[column] = value(primes[row])
		}
	}
}

// paintKey sets the coefficients and the seed of a switching key of these parameters.
func paintKey(key *rlwe.EvaluationKey, of rlwe.ParameterProvider, value func(uint64) uint64) {
	parameters := of.GetRLWEParameters()
	for _, row := range key.Value {
		for _, entry := range row {
			for _, part := range entry {
				paintRows(part.Q, parameters.Q(), value)
				paintRows(part.P, parameters.P(), value)
			}
		}
	}
	if key.Seed != nil {
		for at := 0; at < len(key.Seed); at += 8 {
			binary.LittleEndian.PutUint64(key.Seed[at:], value(0))
		}
	}
}
