// Bootstrapping of CKKS ciphertexts on Lattigo, for fhe_workers/bootstrapping.py over a pipe.
//
//	bootstrap serve <set> <keys> <bytes>      the server's side: frames on standard input and output
//	bootstrap parts <set>                     names and lengths of the parts of an evaluation key
//	bootstrap keygen <set> <folder>           the client's side, from here on
//	bootstrap encrypt <set> <folder> <left>   JSON values on standard input, a ciphertext on output
//	bootstrap decrypt <set> <folder>          the other way round
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bootstrap:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) < 2 {
		return fmt.Errorf("which command and which set?")
	}
	of, err := setNamed(arguments[1])
	if err != nil {
		return err
	}
	rest := append(arguments[2:], "", "")
	switch arguments[0] {
	case "serve":
		keys, err := strconv.Atoi(rest[0])
		if err != nil || keys < 1 {
			return fmt.Errorf("how many keys to keep?")
		}
		memory, err := strconv.ParseUint(rest[1], 10, 63)
		if err != nil {
			return fmt.Errorf("how many bytes of memory?")
		}
		if err := limit(memory); err != nil {
			return err
		}
		return serve(of, keys, os.Stdin, os.Stdout)
	case "parts":
		return parts(of)
	case "keygen":
		return keygen(of, rest[0])
	case "encrypt":
		left, err := strconv.Atoi(rest[1])
		if err != nil {
			return err
		}
		return encrypt(of, rest[0], left)
	case "decrypt":
		data, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		return decrypt(of, rest[0], data)
	}
	return fmt.Errorf("no command %s", arguments[0])
}

// limit ends this process rather than the machine when it wants more memory.
func limit(bytes uint64) error {
	debug.SetMemoryLimit(int64(bytes / 10 * 9))
	space := syscall.Rlimit{Cur: bytes, Max: bytes}
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &space); err != nil {
		return err
	}
	return syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}

func parts(of *set) error {
	shapes, err := newKeyShapes(of)
	if err != nil {
		return err
	}
	lengths := map[string]int{}
	for _, name := range of.partNames() {
		shape, err := shapes.named(name)
		if err != nil {
			return err
		}
		lengths[name] = len(shape.template)
	}
	ciphertexts, err := newCiphertexts(of)
	if err != nil {
		return err
	}
	byLevel := []int{}
	for level := topLevel; level >= 0; level-- {
		byLevel = append(byLevel, len(ciphertexts.shapes[level].template))
	}
	chain := of.chain()
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"parts": lengths, "ciphertext_bytes": byLevel, "log_qp": chain.LogQP(), "log_n": chain.LogN(),
	})
}
