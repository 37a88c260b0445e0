package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"syscall"
)

// A request is one of "check" (does the blob load as this part of a key?), "part" (load it and keep
// it), "finish" (the key is complete), and an operation: "add", "multiply", "bootstrap" over the
// blobs.
type request struct {
	Do     string   `json:"do"`
	Key    string   `json:"key"`
	Part   string   `json:"part"`
	Sha256 string   `json:"sha256"`
	Kinds  []string `json:"kinds"` // of the operands: "cipher" or "plain"
}

// An answer has a reason when it is a refusal. Level counts as the API does: multiplications done.
type answer struct {
	Reason  string  `json:"reason"`
	Message string  `json:"message"`
	Level   int     `json:"level"`
	Scale   float64 `json:"scale"`
	CPUUs   int64   `json:"cpu_us"`
}

// keyWanted is the reason of an operation whose key must be sent first.
const keyWanted = "key_wanted"

type refusal struct{ reason, message string }

func (r refusal) Error() string { return r.message }

func refuse(reason, message string) error { return refusal{reason, message} }

// A server answers the requests of one parent, one after another, and keeps the last keys used.
type server struct {
	set         *set
	ciphertexts *ciphertexts
	shapes      *keyShapes
	bundles     map[string]*bundle
	used        []string // the names of the bundles, the last used one last
	keysMax     int
}

func serve(of *set, keysMax int, from io.Reader, to io.Writer) error {
	reading, err := newCiphertexts(of)
	if err != nil {
		return err
	}
	shapes, err := newKeyShapes(of)
	if err != nil {
		return err
	}
	server := &server{of, reading, shapes, map[string]*bundle{}, nil, keysMax}
	source := bufio.NewReaderSize(from, 1<<20)
	for {
		asked := request{}
		blobs, err := readFrame(source, &asked)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		began := cpuUs()
		said, result, err := server.answer(asked, blobs)
		refused := refusal{}
		if errors.As(err, &refused) {
			said, result = answer{Reason: refused.reason, Message: refused.message}, nil
		} else if err != nil {
			said, result = answer{Reason: "engine_refused", Message: err.Error()}, nil
		}
		said.CPUUs = cpuUs() - began
		if err := writeFrame(to, said, result...); err != nil {
			return err
		}
	}
}

func (s *server) answer(asked request, blobs [][]byte) (answer, [][]byte, error) {
	switch asked.Do {
	case "check", "part":
		return answer{}, nil, s.part(asked, blobs)
	case "finish":
		return answer{}, nil, s.finish(asked.Key)
	}
	key := s.bundles[asked.Key]
	if key == nil || key.ready == nil {
		return answer{}, nil, refuse(keyWanted, "the key is not loaded")
	}
	s.use(asked.Key)
	result, err := s.compute(key, asked, blobs)
	if err != nil {
		return answer{}, nil, err
	}
	data, err := s.ciphertexts.write(result)
	said := answer{Level: topLevel - result.Level(), Scale: result.Scale.Float64()}
	return said, [][]byte{data}, err
}

func (s *server) part(asked request, blobs [][]byte) error {
	if len(blobs) != 1 {
		return refuse("key_invalid", "a part is one blob")
	}
	if digest := sha256.Sum256(blobs[0]); hex.EncodeToString(digest[:]) != asked.Sha256 {
		return refuse("key_invalid", "the part is not what its hash says")
	}
	if err := s.shapes.check(asked.Part, blobs[0]); err != nil {
		return err
	}
	if asked.Do == "check" {
		return newBundle(s.set).take(asked.Part, blobs[0])
	}
	if s.bundles[asked.Key] == nil {
		s.makeRoom()
		s.bundles[asked.Key] = newBundle(s.set)
	}
	s.use(asked.Key)
	return s.bundles[asked.Key].take(asked.Part, blobs[0])
}

func (s *server) finish(key string) error {
	bundle := s.bundles[key]
	if bundle == nil {
		return refuse("key_invalid", "a part of the key is missing")
	}
	err := bundle.finish()
	if err != nil {
		s.drop(key)
	}
	return err
}

// makeRoom for one more key: an expanded one takes two gigabytes.
func (s *server) makeRoom() {
	for len(s.used) >= s.keysMax {
		s.drop(s.used[0])
	}
}

func (s *server) drop(key string) {
	delete(s.bundles, key)
	s.used = slices.DeleteFunc(s.used, func(name string) bool { return name == key })
}

func (s *server) use(key string) {
	s.used = slices.DeleteFunc(s.used, func(name string) bool { return name == key })
	s.used = append(s.used, key)
}

func cpuUs() int64 {
	used := syscall.Rusage{}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return (used.Utime.Nano() + used.Stime.Nano()) / 1000
}
