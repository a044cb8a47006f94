package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// kstatusMain reads JSON objects from standard input and prints, a line each, what kstatus makes of them: the status,
// a tab, the message. It is the library by which Helm, Flux and others decide whether an object is ready.
func kstatusMain() {
	in := json.NewDecoder(os.Stdin)
	for {
		var content map[string]any
		if err := in.Decode(&content); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			fail("kstatus", fmt.Errorf("standard input must be JSON objects: %w", err))
		}
		result, err := status.Compute(&unstructured.Unstructured{Object: content})
		if err != nil {
			fail("kstatus", err)
		}
		fmt.Printf("%s\t%s\n", result.Status, strings.ReplaceAll(result.Message, "\n", " "))
	}
}
