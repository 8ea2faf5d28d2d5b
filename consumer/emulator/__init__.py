"""A local Salesforce org: Pub/Sub API over gRPC, OAuth and SOAP login over HTTP, contact-centre traffic, faults."""
