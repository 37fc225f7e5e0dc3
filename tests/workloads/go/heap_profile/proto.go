package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// site is a stack, innermost call first, each as "function:line", and what it has in use.
type site struct {
	Calls   []string `json:"calls"`
	Objects int64    `json:"objects"`
	Bytes   int64    `json:"bytes"`
	// Samples of different object sizes that were summed up.
	Samples int64 `json:"samples"`
}

// What of the format is read: https://github.com/google/pprof/blob/main/proto/profile.proto
const (
	profileSample, profileLocation, profileFunction, profileString = 2, 4, 5, 6
	sampleLocations, sampleValues                                  = 1, 2
	locationID, locationLine                                       = 1, 4
	lineFunction, lineNumber                                       = 1, 2
	functionID, functionName                                       = 1, 2
	// Values of a sample of a heap profile.
	inUseObjects, inUseBytes = 2, 3
)

type field struct {
	number  int
	value   uint64
	content []byte
}

type message []field

func (m message) value(number int) uint64 {
	for _, field := range m {
		if field.number == number {
			return field.value
		}
	}
	return 0
}

func decode(content []byte) (message, error) {
	var fields message
	for len(content) > 0 {
		tag, size := binary.Uvarint(content)
		if size <= 0 {
			return nil, errors.New("a tag is cut short")
		}
		value, more := binary.Uvarint(content[size:])
		if more <= 0 {
			return nil, errors.New("a number is cut short")
		}
		content = content[size+more:]
		decoded := field{number: int(tag >> 3), value: value}
		switch tag & 7 {
		case 0:
		case 2:
			if value > uint64(len(content)) {
				return nil, errors.New("a field is cut short")
			}
			decoded.content, content = content[:value], content[value:]
		default:
			return nil, fmt.Errorf("a field of type %d", tag&7)
		}
		fields = append(fields, decoded)
	}
	return fields, nil
}

// numbers of a repeated field, packed or not.
func (m message) numbers(number int) []uint64 {
	var numbers []uint64
	for _, field := range m {
		switch {
		case field.number != number:
		case field.content == nil:
			numbers = append(numbers, field.value)
		default:
			for rest := field.content; len(rest) > 0; {
				value, size := binary.Uvarint(rest)
				if size <= 0 {
					break
				}
				numbers, rest = append(numbers, value), rest[size:]
			}
		}
	}
	return numbers
}

// inUseByStack sums up a profile of runtime/pprof: what go tool pprof -raw shows, sizes put together.
func inUseByStack(written []byte) ([]*site, error) {
	unzipped, err := gzip.NewReader(bytes.NewReader(written))
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(unzipped)
	if err != nil {
		return nil, err
	}
	profile, err := decode(content)
	if err != nil {
		return nil, err
	}
	calls, err := callsByLocation(profile)
	if err != nil {
		return nil, err
	}
	byStack := map[string]*site{}
	var sites []*site
	for _, part := range profile {
		if part.number != profileSample {
			continue
		}
		sample, err := decode(part.content)
		if err != nil {
			return nil, err
		}
		values := sample.numbers(sampleValues)
		if values[inUseObjects] == 0 {
			continue
		}
		var stack []string
		for _, location := range sample.numbers(sampleLocations) {
			stack = append(stack, calls[location]...)
		}
		key := fmt.Sprint(stack)
		if byStack[key] == nil {
			byStack[key] = &site{Calls: stack}
			sites = append(sites, byStack[key])
		}
		byStack[key].Objects += int64(values[inUseObjects])
		byStack[key].Bytes += int64(values[inUseBytes])
		byStack[key].Samples++
	}
	return sites, nil
}

func callsByLocation(profile message) (map[uint64][]string, error) {
	var texts []string
	names := map[uint64]uint64{}
	var locations []message
	for _, part := range profile {
		switch part.number {
		case profileString:
			texts = append(texts, string(part.content))
		case profileFunction, profileLocation:
			fields, err := decode(part.content)
			if err != nil {
				return nil, err
			}
			if part.number == profileLocation {
				locations = append(locations, fields)
				continue
			}
			names[fields.value(functionID)] = fields.value(functionName)
		}
	}
	calls := map[uint64][]string{}
	for _, location := range locations {
		id := location.value(locationID)
		for _, part := range location {
			if part.number != locationLine {
				continue
			}
			line, err := decode(part.content)
			if err != nil {
				return nil, err
			}
			name := texts[names[line.value(lineFunction)]]
			calls[id] = append(calls[id], fmt.Sprintf("%s:%d", name, line.value(lineNumber)))
		}
	}
	return calls, nil
}
