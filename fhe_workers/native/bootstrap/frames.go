package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
)

// The layout of fhe_workers/frames.py: u32 length of the message, u32 number of blobs, u64 length
// of each blob, the message, the blobs. The message is JSON here.
const (
	messageBytesMax = 64 * 1024
	blobsMax        = 8
	blobBytesMax    = 40_000_000
)

var errFrame = errors.New("the parent sent something that is no frame")

func readFrame(from io.Reader, message any) ([][]byte, error) {
	var head [2]uint32
	if err := binary.Read(from, binary.LittleEndian, &head); err != nil {
		return nil, err
	}
	if head[0] > messageBytesMax || head[1] > blobsMax {
		return nil, errFrame
	}
	lengths := make([]uint64, head[1])
	if err := binary.Read(from, binary.LittleEndian, lengths); err != nil {
		return nil, err
	}
	encoded := make([]byte, head[0])
	if _, err := io.ReadFull(from, encoded); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(encoded, message); err != nil {
		return nil, errFrame
	}
	blobs := make([][]byte, len(lengths))
	for index, length := range lengths {
		if length > blobBytesMax {
			return nil, errFrame
		}
		blobs[index] = make([]byte, length)
		if _, err := io.ReadFull(from, blobs[index]); err != nil {
			return nil, err
		}
	}
	return blobs, nil
}

func writeFrame(to io.Writer, message any, blobs ...[]byte) error {
	encoded, err := json.Marshal(message)
	if err != nil {
		return err
	}
	frame := binary.LittleEndian.AppendUint32(nil, uint32(len(encoded)))
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(blobs)))
	for _, blob := range blobs {
		frame = binary.LittleEndian.AppendUint64(frame, uint64(len(blob)))
	}
	frame = append(frame, encoded...)
	for _, blob := range blobs {
		frame = append(frame, blob...)
	}
	_, err = to.Write(frame)
	return err
}
