package main

import (
	"fmt"
	"slices"

	"github.com/tuneinsight/lattigo/v6/circuits/ckks/bootstrapping"
	"github.com/tuneinsight/lattigo/v6/core/rlwe"
	"github.com/tuneinsight/lattigo/v6/ring"
	"github.com/tuneinsight/lattigo/v6/schemes/ckks"
)

// 128 bits of security at ring degree 2^15 (with a dense ternary secret) allow a modulus of so many
// bits, the special primes included.
const logQPMax = 881

// topLevel is the level of fresh ciphertexts and of refreshed ones, in Lattigo's way of counting:
// the multiplications that are left. A higher one would exceed the API's 2 MB for a ciphertext.
const topLevel = 2

// A set is one parameter set: what clients encrypt with, and the chain that bootstrapping needs.
type set struct {
	name     string
	residual ckks.Parameters
	boot     bootstrapping.Parameters
	logSlots int
}

// setNamed makes the parameter set of this name; "insecure-n11" is for tests and no client can ask
// for it, since the product knows no such set.
func setNamed(name string) (*set, error) {
	literal := bootstrapping.N15QP880H16384H32
	switch name {
	case "ckks-boot-n15":
	case "insecure-n11":
		literal.SchemeParams.LogN = 11
		literal.SchemeParams.Xs = ring.Ternary{H: 1024}
	default:
		return nil, fmt.Errorf("no parameter set %s", name)
	}
	residual, err := ckks.NewParametersFromLiteral(literal.SchemeParams)
	if err != nil {
		return nil, err
	}
	// The bootstrapping literal does not inherit these three from the scheme's. Its own defaults
	// (ring degree 2^16, other special primes, a sparse secret) end far below 128 bits.
	chain, logSlots := literal.BootstrappingParams, 4
	chain.LogN, chain.LogSlots = &literal.SchemeParams.LogN, &logSlots
	chain.LogP, chain.Xs = literal.SchemeParams.LogP, literal.SchemeParams.Xs
	boot, err := bootstrapping.NewParametersFromLiteral(residual, chain)
	if err != nil {
		return nil, err
	}
	made := boot.BootstrappingParameters
	if logQP := made.LogQP(); logQP > logQPMax || made.LogN() != literal.SchemeParams.LogN {
		return nil, fmt.Errorf("ring degree 2^%d with %.1f bits", made.LogN(), logQP)
	}
	return &set{name, residual, boot, logSlots}, nil
}

// chain is the parameters of all evaluation keys.
func (s *set) chain() ckks.Parameters { return s.boot.BootstrappingParameters }

// encapsulated is the parameters of the key from the dense to the sparse secret: the lowest level
// alone, because the sparse secret is too weak for more.
func (s *set) encapsulated() (rlwe.Parameters, error) {
	chain := s.chain()
	return rlwe.NewParametersFromLiteral(rlwe.ParametersLiteral{
		LogN: chain.LogN(), Q: chain.Q()[:1], P: chain.P()[:1],
	})
}

// galoisElements are those of the rotations that bootstrapping does, and of the conjugation.
func (s *set) galoisElements() []uint64 {
	chain := s.chain()
	all := append(s.boot.GaloisElements(chain), chain.GaloisElementForComplexConjugation())
	slices.Sort(all)
	return slices.Compact(all)
}
