package main

import (
	"encoding"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/tuneinsight/lattigo/v6/circuits/ckks/bootstrapping"
	"github.com/tuneinsight/lattigo/v6/core/rlwe"
)

// An evaluation key comes in parts, each under the API's 40 MB: "rlk" relinearises, "gal<element>"
// rotates or conjugates, "d2s" and "s2d" lead to the sparse secret of bootstrapping and back. All
// but "d2s", which is small, are compressed to half by a seed.
var compressed = rlwe.EvaluationKeyParameters{Compressed: true}

// partNames of a whole key, in order.
func (s *set) partNames() []string {
	names := []string{"rlk", "d2s", "s2d"}
	for _, element := range s.galoisElements() {
		names = append(names, "gal"+strconv.FormatUint(element, 10))
	}
	return names
}

// keyShapes know every part of a key; each shape is learnt when a part wants it, since it takes a
// tenth of a second and a hundred megabytes.
type keyShapes struct {
	set                     *set
	relin, galois, d2s, s2d func() (*shape, error)
}

func newKeyShapes(of *set) (*keyShapes, error) {
	low, err := of.encapsulated()
	if err != nil {
		return nil, err
	}
	chain, made := of.chain(), &keyShapes{set: of}
	made.relin = sync.OnceValues(func() (*shape, error) {
		dummy := rlwe.NewRelinearizationKey(chain, compressed)
		return shapeOfKey(dummy, &dummy.EvaluationKey, chain)
	})
	made.galois = sync.OnceValues(func() (*shape, error) {
		dummy := rlwe.NewGaloisKey(chain, compressed)
		dummy.NthRoot = chain.RingQ().NthRoot()
		return shapeOfKey(dummy, &dummy.EvaluationKey, chain)
	})
	made.d2s = sync.OnceValues(func() (*shape, error) {
		dummy := rlwe.NewEvaluationKey(low)
		return shapeOf(dummy, func(value func(uint64) uint64) { paintKey(dummy, low, value) })
	})
	made.s2d = sync.OnceValues(func() (*shape, error) {
		dummy := rlwe.NewEvaluationKey(chain, compressed)
		return shapeOfKey(dummy, dummy, chain)
	})
	return made, nil
}

// shapeOfKey is the shape of an object around a compressed switching key.
func shapeOfKey(object encoding.BinaryMarshaler, key *rlwe.EvaluationKey, of rlwe.ParameterProvider) (*shape, error) {
	key.Seed = new([32]byte)
	return shapeOf(object, func(value func(uint64) uint64) { paintKey(key, of, value) })
}

// named is the shape of the part of this name, none when no part is called so.
func (k *keyShapes) named(name string) (*shape, error) {
	switch name {
	case "rlk":
		return k.relin()
	case "d2s":
		return k.d2s()
	case "s2d":
		return k.s2d()
	}
	if strings.HasPrefix(name, "gal") {
		return k.galois()
	}
	return nil, refuse("key_invalid", "no part of a key is called "+name)
}

// A bundle is an evaluation key that is being read, part by part.
type bundle struct {
	set   *set
	keys  *bootstrapping.EvaluationKeys
	ready *bootstrapping.Evaluator
}

func newBundle(of *set) *bundle {
	return &bundle{set: of, keys: &bootstrapping.EvaluationKeys{
		MemEvaluationKeySet: &rlwe.MemEvaluationKeySet{GaloisKeys: map[uint64]*rlwe.GaloisKey{}},
	}}
}

// check says whether data is the part of this name.
func (k *keyShapes) check(name string, data []byte) error {
	from := 0
	if element, is := strings.CutPrefix(name, "gal"); is {
		wanted, err := strconv.ParseUint(element, 10, 64)
		if err != nil || !slices.Contains(k.set.galoisElements(), wanted) {
			return refuse("key_invalid", "no rotation of this set has the part "+name)
		}
		if len(data) < 8 || binary.LittleEndian.Uint64(data) != wanted {
			return refuse("key_invalid", "the part is not that of the rotation "+name)
		}
		from = 8
	}
	shape, err := k.named(name)
	if err != nil {
		return err
	}
	if shape.check(data, from) != nil {
		return refuse("key_invalid", fmt.Sprintf("the part %s has not the form of %s", name, k.set.name))
	}
	return nil
}

// take reads and expands one part, which must have been checked.
func (b *bundle) take(name string, data []byte) error {
	chain := b.set.chain()
	switch name {
	case "rlk":
		key := new(rlwe.RelinearizationKey)
		b.keys.RelinearizationKey = key
		return read(&key.EvaluationKey, key.UnmarshalBinary(data), chain)
	case "d2s":
		b.keys.EvkDenseToSparse = new(rlwe.EvaluationKey)
		return b.keys.EvkDenseToSparse.UnmarshalBinary(data)
	case "s2d":
		b.keys.EvkSparseToDense = new(rlwe.EvaluationKey)
		return read(b.keys.EvkSparseToDense, b.keys.EvkSparseToDense.UnmarshalBinary(data), chain)
	}
	key := new(rlwe.GaloisKey)
	if err := read(&key.EvaluationKey, key.UnmarshalBinary(data), chain); err != nil {
		return err
	}
	b.keys.GaloisKeys[key.GaloisElement] = key
	return nil
}

func read(key *rlwe.EvaluationKey, err error, of rlwe.ParameterProvider) error {
	if err != nil {
		return err
	}
	return key.Expand(of, nil)
}

// finish makes the evaluator once all parts are there.
func (b *bundle) finish() error {
	missing := b.keys.RelinearizationKey == nil || b.keys.EvkDenseToSparse == nil || b.keys.EvkSparseToDense == nil
	if missing || len(b.keys.GaloisKeys) != len(b.set.galoisElements()) {
		return refuse("key_invalid", "a part of the key is missing")
	}
	ready, err := bootstrapping.NewEvaluator(b.set.boot, b.keys)
	if err != nil {
		return refuse("key_invalid", "the key cannot be used: "+err.Error())
	}
	b.ready = ready
	return nil
}
