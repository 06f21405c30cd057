// Command oracle asks Kubernetes' own Go code what the right answer is, for our tests and tables. See README.md.
package main

import (
	"fmt"
	"os"
)

func main() {
	command := ""
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	switch command {
	case "apply":
		apply()
	case "quantities":
		quantities()
	case "strategic":
		strategic()
	case "protobuf-table":
		protobufTable()
	case "protobuf-samples":
		protobufSamples()
	default:
		fmt.Fprintln(os.Stderr, "usage: oracle apply|strategic|quantities|protobuf-table|protobuf-samples")
		os.Exit(2)
	}
}
