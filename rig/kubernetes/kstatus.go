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
		// Kubernetes' own decoder keeps whole numbers whole, as the library wants them.
		var content json.RawMessage
		if err := in.Decode(&content); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			fail("kstatus", fmt.Errorf("standard input must be JSON objects: %w", err))
		}
		var object unstructured.Unstructured
		if err := object.UnmarshalJSON(content); err != nil {
			fail("kstatus", err)
		}
		result, err := status.Compute(&object)
		if err != nil {
			fail("kstatus", err)
		}
		fmt.Printf("%s\t%s\n", result.Status, strings.ReplaceAll(result.Message, "\n", " "))
	}
}
